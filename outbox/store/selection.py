"""Finding messages by what people know of them. Nothing here counts the message table."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from django.db.models import (
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
)
from django.db.models.functions import Now

from outbox.models import OutboxMessage, OutboxTodo, TodoState
from outbox.runtime.patterns import any_of
from outbox.store.types import PUBLISHED, STATES

Order = Literal["created", "-created", "due", "-attempts"]

UNSENT: Final = tuple(STATES.values())
"""States that have a row in `outbox_todo`."""

RECENT: Final = 100_000
"""Newest messages that `Selection.narrow` looks at."""

_ORDERS: Final[dict[Order, tuple[str, ...]]] = {
    "created": ("seq",),
    "-created": ("-seq",),
    "due": ("due_at", "seq"),
    "-attempts": ("-attempts", "seq"),
}
_BY_TODO: Final = ("due", "-attempts")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages; what is empty or None does not restrict, and all that is given must hold.

    ``states`` are those of `outbox.History`, ``topics`` are patterns as in ROUTES, ``error`` is
    the class of the last error. ``since`` and ``until`` bound the creation, the end left out; a
    duration means that long ago.
    """

    ids: Collection[uuid.UUID] = ()
    states: Collection[str] = ()
    topics: Collection[str] = ()
    key: str | None = None
    broker: str = ""
    error: str = ""
    since: dt.datetime | timedelta | None = None
    until: dt.datetime | timedelta | None = None

    def positions(self, using: str, limit: int, order: Order = "-created") -> list[int]:
        """The positions of the first ``limit`` messages, in this order.

        Without published ones it begins at the table of what is unsent; else at the message
        table, in the order of positions. The orders ``due`` and ``-attempts`` know no published
        ones: those wait for nothing.
        """
        unsent = self.error or order in _BY_TODO or (self.states and PUBLISHED not in self.states)
        everything = OutboxMessage.objects.using(using)
        rows = self._unsent(using) if unsent else self._all(using, everything)
        return list(rows.order_by(*_ORDERS[order]).values_list("seq", flat=True)[:limit])

    def narrow(self, rows: QuerySet[OutboxMessage], limit: int) -> QuerySet[OutboxMessage]:
        """Those of the rows that are meant, for a page that must never walk a large table.

        Unsent ones, and ones by id: the newest ``limit`` of them. Else among the newest `RECENT`.
        """
        if self.ids or (self.states and PUBLISHED not in self.states):
            return rows.filter(seq__in=self.positions(rows.db, limit))
        newest = OutboxMessage.objects.using(rows.db).order_by("-seq").values_list("seq", flat=True)
        # A figure, as a database would not guess how little a subquery leaves.
        return self._all(rows.db, rows).filter(seq__gt=(newest.first() or 0) - RECENT)

    def _unsent(self, using: str) -> QuerySet[OutboxTodo]:
        rows = OutboxTodo.objects.using(using).filter(self._about_both(using))
        if self.states:
            rows = rows.filter(state__in=self._todo_states())
        if self.error:
            rows = rows.filter(error_class=self.error)
        about = self._about_messages()
        if about:
            # The limit keeps it one look-up a row; an EXISTS may be made a walk of all messages.
            same = OutboxMessage.objects.using(using).filter(about, seq=OuterRef("seq"))
            rows = rows.alias(meant=Subquery(same.values("seq")[:1])).filter(meant__isnull=False)
        return rows

    def _all(self, using: str, rows: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
        rows = rows.filter(self._about_both(using), self._about_messages())
        if self.states:
            todo = OutboxTodo.objects.using(using).filter(seq=OuterRef("seq"))
            # Here published ones are wanted: all but those in the states that are not.
            others = set(STATES) - set(self._todo_states())
            rows = rows.filter(~Exists(todo.filter(state__in=others)))
        return rows

    def _about_both(self, using: str) -> Q:
        found = Q()
        if self.ids:
            # Looked up at once: with an order and a limit, a database may rather walk the table.
            rows = OutboxMessage.objects.using(using).filter(id__in=self.ids)
            found &= Q(seq__in=list(rows.values_list("seq", flat=True)))
        if self.broker:
            found &= Q(broker=self.broker)
        if self.key is not None:
            found &= Q(key=self.key)
        return found

    def _about_messages(self) -> Q:
        found = Q()
        if self.topics:
            found &= Q(topic__regex=any_of(self.topics))
        if self.since is not None:
            found &= Q(created_at__gte=_moment(self.since))
        if self.until is not None:
            found &= Q(created_at__lt=_moment(self.until))
        return found

    def _todo_states(self) -> list[TodoState]:
        return [state for state, name in STATES.items() if name in self.states]


def with_state(rows: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
    """Message rows with what `outbox_todo` says: see `state_of`. One look-up a row of the page."""
    todo = OutboxTodo.objects.using(rows.db).filter(seq=OuterRef("seq"))
    fields = ("state", "attempts", "forgiven", "due_at", "error_class", "error")
    age = ExpressionWrapper(Now() - F("created_at"), output_field=DurationField())
    found = {f"todo_{field}": Subquery(todo.values(field)) for field in fields}
    return rows.annotate(age=age, **found)


def state_of(row: OutboxMessage) -> str:
    """The state of a row of `with_state`."""
    state = row.todo_state  # type: ignore[attr-defined]
    return PUBLISHED if state is None else STATES[TodoState(state)]


def load(using: str, positions: Sequence[int]) -> list[OutboxMessage]:
    """The messages at these positions, in their order, with their state."""
    rows = with_state(OutboxMessage.objects.using(using)).in_bulk(positions)
    return [rows[seq] for seq in positions if seq in rows]


def _moment(given: dt.datetime | timedelta) -> object:
    return Now() - given if isinstance(given, timedelta) else given
