"""The in-process broker of both memory drivers: for tests and for development in one process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Record:
    """One message as the broker holds it."""

    topic: str
    headers: Mapping[str, str]
    body: bytes
    redelivered: bool = False


@dataclass(slots=True)
class _Group:
    position: int = 0
    returned: deque[Record] = field(default_factory=deque)


class Hub:
    """A log that each group reads from its start, as in Kafka; nothing is unroutable.

    The log lives and grows until `clear`; no memory driver is for production.
    """

    def __init__(self) -> None:
        """An empty hub."""
        self._lock = threading.Condition()
        self._log: list[Record] = []
        self._groups: dict[str, _Group] = {}
        self.dead: list[Record] = []

    def append(self, record: Record) -> None:
        """Take a message and wake the readers."""
        with self._lock:
            self._log.append(record)
            self._lock.notify_all()

    def records(self, topic: str | None = None) -> list[Record]:
        """Everything that was ever published, or what was published to one topic."""
        with self._lock:
            return [record for record in self._log if topic in (None, record.topic)]

    def take(self, group: str, topics: Iterable[str], timeout: float) -> Record | None:
        """The group's next record of these topics; wait at most ``timeout`` seconds for one."""
        wanted = frozenset(topics)
        with self._lock:
            found = self._next(group, wanted)
            if found is None and timeout > 0:
                self._lock.wait(timeout)
                found = self._next(group, wanted)
            return found

    def give_back(self, group: str, record: Record) -> None:
        """Deliver this record to the group again, before newer ones."""
        again = Record(record.topic, record.headers, record.body, redelivered=True)
        with self._lock:
            self._groups.setdefault(group, _Group()).returned.append(again)
            self._lock.notify_all()

    def clear(self) -> None:
        """Forget every message and every group."""
        with self._lock:
            self._log.clear()
            self._groups.clear()
            self.dead.clear()

    def _next(self, name: str, topics: frozenset[str]) -> Record | None:
        group = self._groups.setdefault(name, _Group())
        if group.returned:
            return group.returned.popleft()
        while group.position < len(self._log):
            record = self._log[group.position]
            group.position += 1
            if record.topic in topics:
                return record
        return None


_hubs: dict[str, Hub] = {}
_hubs_lock = threading.Lock()


def get(name: str) -> Hub:
    """The hub of this name in this process."""
    with _hubs_lock:
        return _hubs.setdefault(name, Hub())
