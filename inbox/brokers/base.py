"""The port that every broker driver of the consuming half implements."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import ClassVar

from inbox.delivery import Delivery, Disposition
from inbox.exceptions import ConsumerUnavailable
from outbox.runtime.settings import Fault
from outbox.runtime.topology import Shape, TopologyObject


class Consumer:
    """One group's connection to one broker, for one thread of one process.

    The contract:

    1. Each delivery is settled by the caller once, and only then does the broker forget it: ACK
       for good, RETRY so that it comes again, DEAD so that the broker's dead letter queue has it.
       Whatever is not settled when the connection ends is delivered again.
    2. At most ``prefetch`` deliveries are handed out and not settled. With that many open, `poll`
       brings none.
    3. A delivery that may have been handed out before says ``redelivered``.
    4. Bytes that are no message are delivered all the same: the driver judges nothing.
    5. A lost connection raises `ConsumerUnavailable` from any method, a refusal that only a person
       can end raises `InvalidBroker`; no third-party exception leaves the driver, the cause stays
       in ``__cause__``. No call hangs: each ends within seconds of its timeout.
    6. Settling a delivery of a connection that has ended does nothing.
    7. Nothing is opened or imported before `open`; use in a forked child raises
       `ConsumerUnavailable`.
    """

    silence: ClassVar[float] = 1.0
    """Seconds without a delivery after which a reader may take it that none is waiting."""

    def __init__(  # noqa: PLR0913 - what identifies a connection
        self,
        alias: str,
        url: str,
        options: Mapping[str, object],
        *,
        group: str,
        topics: Sequence[str],
        prefetch: int,
    ) -> None:
        """Keep the settings. Raises `InvalidBroker` for options that are wrong."""
        self.alias = alias
        self.url = url
        self.options = options
        self.path = f"INBOX['BROKERS'][{alias!r}]"
        self.group = group
        self.topics = tuple(topics)
        self.prefetch = prefetch
        self._pid = os.getpid()

    def open(self) -> None:
        """Connect and subscribe; does nothing when connected."""
        raise NotImplementedError

    def close(self) -> None:
        """Drop the connection and what is not settled. Never raises."""
        raise NotImplementedError

    def check(self) -> list[Fault]:
        """What `manage.py check --deploy` shall warn of: allowed, and unwise in production.

        Opens and imports nothing.
        """
        return []

    def poll(self, timeout: float) -> list[Delivery]:
        """What has come; wait at most ``timeout`` seconds for the first.

        Also keeps an idle connection alive, so an idle owner calls it every few seconds.
        """
        raise NotImplementedError

    def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """Tell the broker what becomes of a delivery that `poll` returned."""
        raise NotImplementedError

    def topology(self, shape: Shape, *, declare: bool) -> list[TopologyObject]:  # noqa: ARG002 - a broker without queues or topics has none
        """What of the broker this group needs, compared with what the settings ask for.

        With ``declare`` what is missing is created; what is different never changes. Works on a
        connection of its own, subscribes to nothing, and raises as `open` does.
        """
        return []

    def _check_process(self) -> None:
        """A socket or librdkafka handle shared over fork() loses or mixes messages silently."""
        if self._pid != os.getpid():
            message = (
                f"The consumer of broker {self.alias!r} was made in process {self._pid} and is "
                f"used in its child {os.getpid()}: make consumers after the fork."
            )
            raise ConsumerUnavailable(message)
