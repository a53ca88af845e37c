"""What a drain did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from outbox.store import Done, Failed, Outcomes


@dataclass(slots=True)
class DrainReport:
    """Counts of one or more pages.

    ``released`` were claimed and left as they were (unknown, or no time left); ``fenced`` counts
    pages whose lease was lost, so that nothing of them was recorded. ``outage`` says why a drain
    stopped early, and is empty when it did not.
    """

    claimed: int = 0
    published: int = 0
    retried: int = 0
    dead: int = 0
    parked: int = 0
    released: int = 0
    fenced: int = 0
    seconds: float = 0.0
    outage: str = ""

    def settled(self, claimed: int, outcomes: Outcomes) -> None:
        """Count a page that was recorded."""
        failed = [outcome for outcome in outcomes.values() if isinstance(outcome, Failed)]
        published = sum(isinstance(outcome, Done) for outcome in outcomes.values())
        self.claimed += claimed
        self.published += published
        self.dead += sum(outcome.delay is None for outcome in failed)
        self.retried += sum(outcome.delay is not None for outcome in failed)
        self.parked += len(outcomes) - published - len(failed)
        self.released += claimed - len(outcomes)

    def add(self, other: DrainReport) -> None:
        """Add the figures of another report; of two outages the first is kept."""
        for field in fields(self):
            if field.name != "outage":
                total = getattr(self, field.name) + getattr(other, field.name)
                setattr(self, field.name, total)
        self.outage = self.outage or other.outage

    def as_dict(self) -> dict[str, int | float | str]:
        """The figures by name."""
        return asdict(self)
