"""Which offsets of an assigned Kafka partition are done, and which may be committed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Partition:
    """What one assignment of a partition has fetched and not committed."""

    topic: str
    number: int
    repeats: int
    """How many of the next messages may have been handed out before (DESIGN section 7)."""
    pending: deque[int] = field(default_factory=deque)
    """Offsets in their order, from the first that is not done."""
    done: set[int] = field(default_factory=set)
    """Offsets behind the first pending one that are done."""
    commit: int | None = None
    """The offset to commit: everything before it is done."""

    def fetch(self, offset: int) -> bool:
        """Take note of a fetched offset; whether it may be a repeat."""
        self.pending.append(offset)
        repeat = self.repeats > 0
        self.repeats -= repeat
        return repeat

    def finish(self, offset: int) -> None:
        """Committing an offset commits all before it, so one that is open holds it back (F12)."""
        self.done.add(offset)
        while self.pending and self.pending[0] in self.done:
            first = self.pending.popleft()
            self.done.discard(first)
            self.commit = first + 1

    def rewind(self, offset: int) -> None:
        """Forget an offset and all behind it: they will be fetched again."""
        self.pending = deque(known for known in self.pending if known < offset)
        self.done = {known for known in self.done if known < offset}
        self.repeats = max(self.repeats, 1)
