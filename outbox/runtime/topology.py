"""What a driver needs on its broker, and whether it is there."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.StrEnum):
    """How an object of the broker compares with what the settings ask for."""

    PRESENT = "present"
    MISSING = "missing"
    DIFFERENT = "different"
    UNKNOWN = "unknown"
    """The broker does not say: ``detail`` has the reason."""


@dataclass(frozen=True, slots=True)
class TopologyObject:
    """One exchange, queue, binding or topic."""

    kind: str
    name: str
    state: State
    detail: str | None = None
    """What differs, what was done, or why it is not known."""

    @property
    def has_drifted(self) -> bool:
        """Whether a person has to do something. What the broker does not say is no drift."""
        return self.state in (State.MISSING, State.DIFFERENT)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a Kafka topic is made with, and compared with; None leaves it to the broker."""

    partitions: int | None = None
    replication_factor: int | None = None


DECLARED = "declared now"
