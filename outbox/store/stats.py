"""Counts for people: what is not on the broker, and for how long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from django.db.models import Count, DurationField, ExpressionWrapper, F, Max, OuterRef, Q, Subquery
from django.db.models.functions import Now

from outbox.models import OutboxMessage, OutboxTodo, TodoState
from outbox.store.types import STATES

Grouping = Literal["state", "broker", "topic", "error"]

_AGE: Final = ExpressionWrapper(Now() - F("due_at"), output_field=DurationField())
_DUE: Final = Q(state=TodoState.NEW) | Q(state=TodoState.RETRY, due_at__lte=Now())
_COUNTS: Final = {
    "pending": Count("ord", filter=Q(state=TodoState.NEW)),
    "retrying": Count("ord", filter=Q(state=TodoState.RETRY)),
    "parked": Count("ord", filter=Q(state=TodoState.PARKED)),
    "dead": Count("ord", filter=Q(state=TodoState.DEAD)),
    "oldest": Max(_AGE, filter=_DUE),
}


def totals(using: str) -> dict[str, Any]:
    """Counts by state, and ``oldest``: the seconds that the oldest due message has waited, or None.

    Reads `outbox_todo`, which holds only what is unsent; the message table is never counted.
    """
    return _seconds(OutboxTodo.objects.using(using).aggregate(**_COUNTS))


def groups(using: str, by: Grouping) -> Iterator[dict[str, Any]]:
    """The counts of `totals` for each state, broker, topic or error class, under ``name``."""
    topic = OutboxMessage.objects.using(using).filter(seq=OuterRef("seq")).values("topic")
    name = {"error": F("error_class"), "topic": Subquery(topic)}.get(by, F(by))
    rows = OutboxTodo.objects.using(using).values(name=name).annotate(**_COUNTS)
    row: Mapping[str, Any]
    for row in rows.order_by("name"):
        shown = STATES[TodoState(row["name"])] if by == "state" else row["name"]
        yield {**_seconds(row), "name": shown}


def _seconds(row: Mapping[str, Any]) -> dict[str, Any]:
    oldest = row["oldest"]
    return {**row, "oldest": None if oldest is None else max(0.0, oldest.total_seconds())}
