"""What the store hands to the relay, and what it takes back."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from outbox.wire import Message


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to drain one lane; ``seq`` of the lane's log is the token that fences every write.

    ``expires`` is on this process's monotonic clock and is taken before the database was asked, so
    it never lies after the true end. It saves useless work; the fence keeps the promise.
    """

    broker: str
    lane: int
    slots: tuple[int, ...]
    owner: uuid.UUID
    epoch: int
    seq: int
    expires: float

    def remaining(self) -> float:
        """Seconds until the lease ends."""
        return self.expires - time.monotonic()

    def moved(self, expires: float) -> Lease:
        """The lease after one more row of the lane's log."""
        return replace(self, seq=self.seq + 1, expires=expires)


@dataclass(frozen=True, slots=True)
class Entry:
    """A message to hand over. ``held``: an earlier message of its key is in the way."""

    seq: int
    message: Message
    attempts: int = 0
    held: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """The broker has confirmed it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It failed by its own fault: try again after ``delay``, or never (None: dead)."""

    error_class: str
    error: str
    delay: timedelta | None


@dataclass(frozen=True, slots=True)
class Parked:
    """It waits behind an earlier message of its key."""


Outcome = Done | Failed | Parked
Outcomes = Mapping[int, Outcome]
"""``seq`` → outcome. A message without one stays as it is: nothing is known, nothing was tried."""
