"""What is in flight: one page between its hand-over and its settling."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Sequence

from outbox.brokers.base import Confirm, Status
from outbox.store import Done, Entry, Failed, Outcome, Parked

Judge = Callable[[Entry, str, str], Failed]
"""(entry, error class, error) → when to try again, if ever."""


class Window:
    """Decides which message of a page may be handed over next, and what became of each.

    Messages of one key leave one after the other, each after its predecessor's confirm (G7);
    messages without a key leave at once. A message of which nothing is known gets no outcome: it
    stays where it is and costs no attempt. ``doubt`` is why, if the broker said so of any.
    """

    def __init__(self, page: Sequence[Entry], judge: Judge, max_count: int, max_bytes: int) -> None:
        """``max_count`` and ``max_bytes`` bound what is unanswered at any time."""
        self.outcomes: dict[int, Outcome] = {}
        self.doubt = ""
        self._judge = judge
        self._room = max_count
        self._bytes = max_bytes
        self._ready: deque[Entry] = deque()
        self._chains: dict[str, deque[Entry]] = {}
        self._in_flight: dict[uuid.UUID, Entry] = {}
        for entry in page:
            self._admit(entry)

    def __bool__(self) -> bool:
        """Whether an answer is still awaited or a message still to be handed over."""
        return bool(self._ready or self._in_flight)

    @property
    def in_flight(self) -> tuple[Entry, ...]:
        """What is handed over and not answered."""
        return tuple(self._in_flight.values())

    def next(self) -> Entry | None:
        """The next message that may be handed over, now in flight; None while there is no room."""
        if not self._ready or self._room <= 0:
            return None
        # A message larger than the bound goes alone.
        if self._in_flight and len(self._ready[0].message.body) > self._bytes:
            return None
        entry = self._ready.popleft()
        self._in_flight[entry.message.id] = entry
        self._room -= 1
        self._bytes -= len(entry.message.body)
        return entry

    def take(self, confirm: Confirm) -> None:
        """Note the broker's answer."""
        entry = self._answered(confirm.message_id)
        if entry is None:
            return
        if confirm.status is Status.ACKED:
            self._done(entry)
        elif confirm.status is Status.UNKNOWN:
            self.doubt = confirm.reason or "the broker gave no verdict"
        else:
            self.fail(entry, confirm.status.value, confirm.reason)

    def fail(self, entry: Entry, error_class: str, error: str) -> None:
        """Note that a message failed by its own fault: its key waits behind it."""
        self._answered(entry.message.id)
        self.outcomes[entry.seq] = self._judge(entry, error_class, error)
        for follower in self._chains.pop(entry.message.key, ()):
            self.outcomes[follower.seq] = Parked()

    def stop(self) -> None:
        """Hand over nothing more; what is in flight is still awaited."""
        self._ready.clear()
        self._chains.clear()

    def abandon(self) -> None:
        """Hand over nothing more and await nothing: the connection is gone."""
        self.stop()
        self._in_flight.clear()

    def _admit(self, entry: Entry) -> None:
        key = entry.message.key
        if entry.held:
            self.outcomes[entry.seq] = Parked()
        elif not key:
            self._ready.append(entry)
        elif key in self._chains:
            self._chains[key].append(entry)
        else:
            self._chains[key] = deque()
            self._ready.append(entry)

    def _done(self, entry: Entry) -> None:
        self.outcomes[entry.seq] = Done()
        chain = self._chains.get(entry.message.key)
        if chain:
            self._ready.append(chain.popleft())

    def _answered(self, message_id: uuid.UUID) -> Entry | None:
        entry = self._in_flight.pop(message_id, None)
        if entry is not None:
            self._room += 1
            self._bytes += len(entry.message.body)
        return entry
