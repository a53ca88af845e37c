"""What the table says about an arrival, and who may record what became of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from inbox.models import State
from inbox.reading import Arrival


class Verdict(enum.Enum):
    """What the table says about an arrival."""

    RUN = enum.auto()
    """It is ours to run, in this transaction."""
    NOTED = enum.auto()
    """An attempt is noted and has no outcome: count another one before running it."""
    DUPLICATE = enum.auto()
    """Processed before."""
    KNOWN = enum.auto()
    """Failed before: its retry schedule or a person runs it, not a repeat."""
    CONFLICT = enum.auto()
    """The id is taken by other content."""
    EXHAUSTED = enum.auto()
    """Its last attempt left no outcome; it has just been made dead."""
    GONE = enum.auto()
    """The row that was in the way is not there any more: ask again."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run a message whose attempt is counted already.

    ``token`` is the number of that attempt; ``state`` is where the row stays until the run ends.
    With token 0 no row exists yet. ``forgiven`` are the attempts before a person's last retry.
    """

    arrival: Arrival
    token: int = 0
    state: State = State.RECEIVED
    forgiven: int = 0

    @property
    def attempts(self) -> int:
        """The attempts that count towards MAX_ATTEMPTS, this one included."""
        return self.token - self.forgiven


@dataclass(frozen=True, slots=True)
class Failure:
    """How a run ended badly. ``delay`` is None for a dead message."""

    error_class: str
    error: str
    delay: timedelta | None


ENDED_ITS_PROCESS: Final = Failure(
    "HandlerEndedProcess",
    "The handler ended its process in each attempt: none of them left an outcome.",
    None,
)
