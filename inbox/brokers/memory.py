"""Consumer of the in-process broker: for tests and for development in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from inbox.brokers.base import Consumer
from inbox.delivery import Delivery, Disposition
from outbox.runtime import hub
from outbox.runtime.drivers import read_options


@dataclass(frozen=True, slots=True)
class _Options:
    name: str = "default"


class MemoryConsumer(Consumer):
    """Reads the hub that option ``name`` names (``"default"``)."""

    silence: ClassVar[float] = 0.05

    def __init__(  # noqa: PLR0913 - as the base class
        self,
        alias: str,
        url: str,
        options: Mapping[str, object],
        *,
        group: str,
        topics: Sequence[str],
        prefetch: int,
    ) -> None:
        """Raises `InvalidBroker` for an unknown option."""
        super().__init__(alias, url, options, group=group, topics=topics, prefetch=prefetch)
        self._hub = hub.get(read_options(f"{self.path}['OPTIONS']", options, _Options).name)
        self._open: dict[int, hub.Record] = {}

    def open(self) -> None:
        """There is nothing to connect to."""
        self._check_process()

    def close(self) -> None:
        """Give back what is not settled, in its order."""
        for record in self._open.values():
            self._hub.give_back(self.group, record)
        self._open.clear()

    def poll(self, timeout: float) -> list[Delivery]:
        """At most one."""
        self._check_process()
        if len(self._open) >= self.prefetch:
            return []
        record = self._hub.take(self.group, self.topics, timeout)
        if record is None:
            return []
        tag = id(record)
        self._open[tag] = record
        return [Delivery(self.group, record.headers, record.body, record.redelivered, tag)]

    def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """RETRY comes before newer ones; DEAD lands in the hub's ``dead``."""
        self._check_process()
        record = self._open.pop(delivery.tag, None) if isinstance(delivery.tag, int) else None
        if record is None:
            return
        if disposition is Disposition.RETRY:
            self._hub.give_back(self.group, record)
        elif disposition is Disposition.DEAD:
            self._hub.dead.append(record)
