"""Publisher over the in-process hub: for tests and for development in one process."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from outbox.brokers.base import Address, Confirm, Publisher, Status
from outbox.exceptions import BrokerUnavailable
from outbox.runtime import hub
from outbox.runtime.drivers import read_options
from outbox.wire import Message, to_headers
from outbox.wire.headers import KAFKA_PREFIX


@dataclass(frozen=True, slots=True)
class _Options:
    name: str = "default"
    """Which hub of this process."""


class MemoryPublisher(Publisher):
    """Publish into `outbox.runtime.hub`, in headers and bytes as to a real broker.

    Address: ``topic`` (default: the message's).
    """

    def __init__(self, alias: str, url: str, options: Mapping[str, object]) -> None:
        """Keep the settings. Raises `InvalidBroker` for options that are wrong."""
        super().__init__(alias, url, options)
        self._hub = hub.get(read_options(f"{self.path}['OPTIONS']", options, _Options).name)
        self._answers: deque[Confirm] = deque()
        self._is_open = False

    def open(self) -> None:
        """Begin; nothing can fail."""
        self._check_owner()
        self._is_open = True

    def close(self) -> None:
        """Forget the answers that were not collected."""
        self._is_open = False
        self._answers.clear()

    def submit(self, message: Message, address: Address) -> None:
        """Append to the hub's log."""
        self._check_open()
        topic = address.get("topic", message.topic)
        self._hub.append(hub.Record(topic, to_headers(message, KAFKA_PREFIX), message.body))
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
