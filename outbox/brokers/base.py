"""The port that every broker driver of the producing half implements."""

from __future__ import annotations

import enum
import os
import threading
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from outbox.exceptions import BrokerError
from outbox.runtime.settings import Fault
from outbox.runtime.topology import Shape, TopologyObject
from outbox.wire import Message

Address = Mapping[str, str]
"""Where a message goes, in the driver's words; an empty one means: the topic."""


class Status(enum.Enum):
    """What the broker answered about one message."""

    ACKED = "acked"
    """The broker has taken responsibility for this very message."""
    NACKED = "nacked"
    """The broker refused it: the message's fault, or its queue's."""
    RETURNED = "returned"
    """Nobody was bound to receive it."""
    UNKNOWN = "unknown"
    """No verdict: it may be on the broker or not, and is handed over again."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """The broker's answer for one submission; ``reason`` says why it is no ACKED."""

    message_id: uuid.UUID
    status: Status
    reason: str = ""


class Publisher:
    """One connection to one broker, for one thread of one process.

    The contract:

    1. Each submission gets exactly one `Confirm`, in any order, or the connection fails. ACKED is
       only ever said of that very message. So no id is submitted again before its answer.
    2. A lost connection raises `BrokerUnavailable` from any method; everything in flight is then
       unknown and the publisher is closed. Any doubt counts as lost. `BrokerMisconfigured` is the
       same with a cause that waiting does not cure; from `submit` or `confirms` it says that one
       of the messages in flight made the broker break off: fewer at a time will show which.
    3. No third-party exception leaves the driver; the cause stays in ``__cause__``.
    4. No driver decides about retries, and none keeps a message after `close`.
    5. Nothing is opened or imported before `open`; use in a forked child raises `BrokerError`.
    """

    window: int = 1000
    """How many submissions may be unanswered."""
    window_bytes: int = 2 * 1024 * 1024
    """How many bytes of bodies may be unanswered, so that neither side blocks on a full socket."""

    def __init__(self, alias: str, url: str, options: Mapping[str, object]) -> None:
        """Keep the settings of this alias. Raises `InvalidBroker` for options that are wrong."""
        self.alias = alias
        self.url = url
        self.options = options
        self.path = f"OUTBOX['BROKERS'][{alias!r}]"
        self._pid = os.getpid()
        self._thread = threading.get_ident()

    def open(self) -> None:
        """Connect; does nothing when connected.

        Raises `BrokerUnavailable`, or `BrokerMisconfigured` when the broker refuses us.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Drop the connection and what is in flight. Never raises."""
        raise NotImplementedError

    def check(self) -> list[Fault]:
        """What `manage.py check --deploy` shall warn of: allowed, and unwise in production.

        Opens and imports nothing.
        """
        return []

    def submit(self, message: Message, address: Address) -> None:
        """Hand over one message and do not wait for the answer."""
        raise NotImplementedError

    def confirms(self, timeout: float) -> list[Confirm]:
        """The answers that have come; wait at most ``timeout`` seconds for the first.

        Also keeps an idle connection alive, so an idle owner calls it every few seconds.
        """
        raise NotImplementedError

    def topology(
        self,
        addresses: Iterable[Address],  # noqa: ARG002 - a broker without exchanges or topics has none
        shape: Shape,  # noqa: ARG002
        *,
        declare: bool,  # noqa: ARG002
    ) -> list[TopologyObject]:
        """What of the broker these addresses need, compared with what the settings ask for.

        With ``declare`` what is missing is created; what is different never changes. Works on a
        connection of its own. Raises as `open` does.
        """
        return []

    def _check_owner(self) -> None:
        """Raise `BrokerError` in another process or thread than the one that made the publisher.

        A socket or librdkafka handle shared over fork() loses or mixes messages silently (R11,
        F1), and so does one that two threads share (R10).
        """
        if self._is_inherited():
            raise BrokerError(
                f"The publisher of broker {self.alias!r} was made in process {self._pid} and is "
                f"used in its child {os.getpid()}: make publishers after the fork."
            )
        if self._thread != threading.get_ident():
            raise BrokerError(
                f"The publisher of broker {self.alias!r} is used in another thread than the one "
                "that made it: take one from outbox.brokers.publishers in each thread."
            )

    def _is_inherited(self) -> bool:
        """Is this a forked child, to which the connection does not belong?"""
        return self._pid != os.getpid()
