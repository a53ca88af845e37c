"""Publisher that prints: for development, and the shortest example of a driver."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from outbox.brokers.base import Address, Confirm, Publisher, Status
from outbox.exceptions import BrokerUnavailable
from outbox.runtime.drivers import read_options
from outbox.wire import DecodeError, Message, to_headers
from outbox.wire.headers import KAFKA_PREFIX


@dataclass(frozen=True, slots=True)
class _Options:
    pretty: bool = True
    """For the eye; off: each message one line of JSON, which a program can read back."""


class ConsolePublisher(Publisher):
    """Print each message to standard output and say ACKED at once.

    Address: ``topic`` (default: the message's). Option: ``pretty``.
    """

    def __init__(self, alias: str, url: str, options: Mapping[str, object]) -> None:
        """Keep the settings. Raises `InvalidBroker` for options that are wrong."""
        super().__init__(alias, url, options)
        self._pretty = read_options(f"{self.path}['OPTIONS']", options, _Options).pretty
        self._answers: deque[Confirm] = deque()
        self._is_open = False

    def open(self) -> None:
        """Begin; standard output is always there."""
        self._check_owner()
        self._is_open = True

    def close(self) -> None:
        """Forget the answers that were not collected."""
        self._is_open = False
        self._answers.clear()

    def submit(self, message: Message, address: Address) -> None:
        """Print."""
        self._check_open()
        shown = self._shown(address.get("topic", message.topic), message)
        try:
            sys.stdout.write(f"{shown}\n")
            sys.stdout.flush()
        except (OSError, ValueError) as error:  # a pipe without a reader, a closed file
            self.close()
            raise BrokerUnavailable(f"Standard output takes nothing more: {error}.") from error
        self._answers.append(Confirm(message.id, Status.ACKED))

    def confirms(self, timeout: float) -> list[Confirm]:  # noqa: ARG002 - answers come at once
        """Everything submitted since the last call is ACKED."""
        self._check_open()
        answers = list(self._answers)
        self._answers.clear()
        return answers

    def _check_open(self) -> None:
        self._check_owner()
        if not self._is_open:
            raise BrokerUnavailable(f"The publisher of broker {self.alias!r} is not open.")

    def _shown(self, topic: str, message: Message) -> str:
        fields: dict[str, object] = {"topic": topic, "headers": to_headers(message, KAFKA_PREFIX)}
        if not self._pretty:
            # Any bytes can be had back: body.encode("utf-8", "surrogateescape").
            text = message.body.decode("utf-8", "surrogateescape")
            return json.dumps({**fields, "body": text})
        try:
            fields["payload"] = message.payload
        except DecodeError:
            fields["body"] = repr(message.body)
        return json.dumps(fields, indent=2, ensure_ascii=False, default=str)
