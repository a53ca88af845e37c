"""`outbox.history`: what happened to a message."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import router

from outbox.models import OutboxEvent, OutboxLane, OutboxMessage, OutboxTodo, TodoState
from outbox.runtime.timeline import Event
from outbox.store.types import PUBLISHED, STATES
from outbox.wire import Message


@dataclass(frozen=True, slots=True)
class History:
    """A message, where it stands, and what happened to it.

    ``state`` is ``"pending"``, ``"retrying"``, ``"parked"`` (behind an earlier message of its
    key), ``"published"`` or ``"dead"``. ``seq`` is its position, ``broker`` the alias that its
    route named. ``attempts`` counts the hand-overs that failed and is 0 once it is published.
    ``error_class`` and ``error`` are those of the last one, ``""`` when there was none.
    ``due_at`` is when the next attempt may be, None when none is to come by itself.

    ``published_at`` is when the broker's confirm was recorded. Of a message that had failed or
    waited before it is exact. Of any other it is the time of the newest page of the lane's log
    that spans it: exact, or later if that page had also one that was held up, because its
    transaction committed late or the broker left it unanswered. None when it is not published, or
    so long ago that its page has left the log.

    ``events`` tell the same in order: ``created``, ``failed``, ``dead``, ``parked``, ``retried``
    (by a person), ``published``.
    """

    message: Message
    seq: int
    broker: str
    state: str
    attempts: int
    created_at: dt.datetime
    due_at: dt.datetime | None
    published_at: dt.datetime | None
    error_class: str
    error: str
    events: tuple[Event, ...]


def history(id: uuid.UUID | str, using: str | None = None) -> History | None:  # noqa: A002 - its name
    """What happened to a message; None if there is none with this id.

    That is: there never was, its transaction was rolled back, or it has been removed since.
    ``using`` is the database alias, by default the one that the routers name for writing. Reads
    a few rows by their indexes, at most four queries. Raises `ValueError` for what is no UUID.
    """
    wanted = id if isinstance(id, uuid.UUID) else uuid.UUID(id)
    alias = using or router.db_for_write(OutboxMessage)
    # Not first(): its ORDER BY makes walking the primary key look cheap.
    for row in OutboxMessage.objects.using(alias).filter(id=wanted):
        return history_of(row, alias)
    return None


def history_of(row: OutboxMessage, using: str) -> History:
    """The history of a message whose row is at hand."""
    todo = next(iter(OutboxTodo.objects.using(using).filter(seq=row.seq)), None)
    rows = OutboxEvent.objects.using(using).filter(seq=row.seq).order_by("id")
    events = [Event(row.created_at, "created"), *(_event(noted) for noted in rows)]
    if todo is None and events[-1].name != PUBLISHED:
        events.append(Event(_page_times([row], using).get(row.seq), PUBLISHED))
    waits = todo is not None and todo.state in (TodoState.NEW, TodoState.RETRY)
    return History(
        message=row.to_message(),
        seq=row.seq,
        broker=row.broker,
        state=STATES[TodoState(todo.state)] if todo else PUBLISHED,
        attempts=todo.attempts if todo else 0,
        created_at=row.created_at,
        due_at=todo.due_at if todo and waits else None,
        published_at=None if todo else events[-1].at,
        error_class=todo.error_class if todo else "",
        error=todo.error if todo else "",
        events=tuple(events),
    )


def _event(row: OutboxEvent) -> Event:
    parts = [
        f"attempt {row.attempt}" if row.attempt else "",
        f"by {row.actor}" if row.actor else "",
        row.detail,
        row.reason,
    ]
    return Event(row.at, row.name, ": ".join(filter(None, parts)))


def published_times(rows: Sequence[OutboxMessage], using: str) -> dict[int, dt.datetime]:
    """Position → ``published_at`` of `History`, for published messages of which it is known."""
    seqs = [row.seq for row in rows]
    noted = OutboxEvent.objects.using(using).filter(seq__in=seqs, name=PUBLISHED).order_by("id")
    exact = dict(noted.values_list("seq", "at"))
    return exact | _page_times([row for row in rows if row.seq not in exact], using)


def _page_times(rows: Sequence[OutboxMessage], using: str) -> dict[int, dt.datetime]:
    """The time of the newest page of the log that spans each. Reads the log, which is short."""
    if not rows:
        return {}
    seqs = [row.seq for row in rows]
    log = OutboxLane.objects.using(using).filter(
        broker__in={row.broker for row in rows},
        first_done__lte=max(seqs),
        last_done__gte=min(seqs),
    )
    found = {}
    for page in log.order_by("at"):
        for row in rows:
            if page.broker == row.broker and _left_by(row, page):
                found[row.seq] = page.at
    return found


def _left_by(row: OutboxMessage, page: OutboxLane) -> bool:
    # The span is not None: the query asked for it.
    spanned = page.first_done <= row.seq <= page.last_done  # type: ignore[operator]
    return spanned and page.lane == row.slot % page.lanes
