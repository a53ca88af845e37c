"""Figures for people. Rows that were processed long ago are never counted: that reads them all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from django.db.models import Count, DurationField, ExpressionWrapper, F, Min, Q, QuerySet, Sum
from django.db.models.functions import Coalesce, Now

from inbox.models import InboxMessage, InboxQuarantine, State

By = Literal["group", "topic", "state"]

_DUE: Final = Q(state=State.RECEIVED) | Q(state=State.PARKED, next_attempt_at__lte=Now())


@dataclass(slots=True)
class Figures:
    """How many messages are where.

    ``processed`` and the duplicates of processed messages are those of the span, everything else
    is what is there. ``oldest`` is the age, in seconds, of the oldest message that is due.
    """

    received: int = 0
    processed: int = 0
    parked: int = 0
    dead: int = 0
    quarantined: int = 0
    discarded: int = 0
    duplicates: int = 0
    oldest: float | None = None
    processed_per_minute: float = 0.0

    def add(self, other: Figures) -> None:
        """Add the counts of another part; the older of the two is the oldest."""
        for name in ("received", "processed", "parked", "dead", "quarantined", "discarded"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.duplicates += other.duplicates
        ages = [age for age in (self.oldest, other.oldest) if age is not None]
        self.oldest = max(ages, default=None)


def figures(using: str, by: By, since: timedelta) -> dict[str, Figures]:
    """Name of a group, topic or state → its figures, by name. ``since`` counts back from now."""
    found: dict[str, Figures] = {}
    for name, part in _parts(using, by, since):
        found.setdefault(name, Figures()).add(part)
    for part in found.values():
        part.processed_per_minute = round(part.processed * 60 / since.total_seconds(), 3)
    return dict(sorted(found.items()))


def total(parts: dict[str, Figures], since: timedelta) -> Figures:
    """The sum of what `figures` returned for the same span."""
    summed = Figures()
    for part in parts.values():
        summed.add(part)
    summed.processed_per_minute = round(summed.processed * 60 / since.total_seconds(), 3)
    return summed


def _parts(using: str, by: By, since: timedelta) -> list[tuple[str, Figures]]:
    rows = InboxMessage.objects.using(using)
    # Each reads a partial index: inbox_message_open and inbox_message_done.
    waiting = rows.exclude(state=State.PROCESSED)
    done = rows.filter(state=State.PROCESSED, processed_at__gte=Now() - since)
    parts = [part for query in (waiting, done) for part in _count(query, by)]
    kept = InboxQuarantine.objects.using(using)
    if by == "state":
        count = kept.count()
        return [*parts, ("quarantined", Figures(quarantined=count))] if count else parts
    names = kept.values_list("topic" if by == "topic" else "group_name")
    return parts + [(name, Figures(quarantined=n)) for name, n in names.annotate(n=Count("id"))]


def _count(query: QuerySet[InboxMessage], by: By) -> list[tuple[str, Figures]]:
    name = {"group": F("group_name"), "topic": F("topic"), "state": F("state")}[by]
    rows: Any = (
        query.order_by()
        .values("state", name=name)
        .annotate(
            count=Count("id"),
            repeats=Coalesce(Sum("duplicates"), 0),
            age=ExpressionWrapper(
                Now() - Min("received_at", filter=_DUE), output_field=DurationField()
            ),
        )
    )
    return [(_name(row, by), _figures(row)) for row in rows]


def _name(row: dict[str, Any], by: By) -> str:
    return State(row["state"]).name.lower() if by == "state" else str(row["name"])


def _figures(row: dict[str, Any]) -> Figures:
    age = None if row["age"] is None else row["age"].total_seconds()
    part = Figures(duplicates=row["repeats"], oldest=age)
    setattr(part, State(row["state"]).name.lower(), row["count"])
    return part
