"""What the store hands to the relay, and what it takes back."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from outbox.models import TodoState
from outbox.wire import Message

STATES: Final[Mapping[TodoState, str]] = MappingProxyType(
    {
        TodoState.NEW: "pending",
        TodoState.RETRY: "retrying",
        TodoState.PARKED: "parked",
        TodoState.DEAD: "dead",
    }
)
"""State of a message that is not on the broker. Without a row in `OutboxTodo` it is published."""
PUBLISHED: Final = "published"


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
    """A message to hand over. ``held``: an earlier message of its key is in the way.

    ``forgiven`` of its ``attempts`` do not count any more; ``revision`` is None for one that only
    this relay may change.
    """

    seq: int
    message: Message
    attempts: int = 0
    held: bool = False
    forgiven: int = 0
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The broker has confirmed it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It failed by its own fault: try again after ``delay``, or never (None: dead).

    With the ``revision`` of its entry, a person who has decided otherwise since keeps the last
    word on when it is tried again; without, nobody else may have changed it.
    """

    error_class: str
    error: str
    delay: timedelta | None
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Parked:
    """It waits behind an earlier message of its key."""


Outcome = Done | Failed | Parked
Outcomes = Mapping[int, Outcome]
"""``seq`` → outcome. A message without one stays as it is: nothing is known, nothing was tried."""
