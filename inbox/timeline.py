"""What happened to a message, group by group."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from django.db.models import Model, QuerySet

from inbox import databases
from inbox.models import Happening, InboxEvent, InboxMessage, InboxQuarantine, State
from outbox.runtime.timeline import Event

M = TypeVar("M", bound=Model)

QUARANTINED: Final = "quarantined"
"""The state of a delivery of a message that its group has not taken in."""

_EVENTS: Final = 500
"""Events and quarantined deliveries of a message that are told, the newest: a bound for a page."""


@dataclass(frozen=True, slots=True)
class GroupHistory:
    """What a group did with a message.

    ``state`` is ``received``, ``processed``, ``parked``, ``dead`` or ``discarded``; or
    ``quarantined`` when the group has only deliveries of this id that it could not take in.
    ``events`` are in order. Times are aware (naive without USE_TZ).
    """

    group: str
    topic: str
    state: str
    attempts: int
    duplicates: int
    received_at: dt.datetime
    processed_at: dt.datetime | None
    next_attempt_at: dt.datetime | None
    error_class: str
    error: str
    events: tuple[Event, ...]


def history(id: uuid.UUID | str, using: str | None = None) -> list[GroupHistory]:  # noqa: A002 - the word
    """What each group did with the message of this id, by group; empty for an unknown id.

    Looks at every database of the inbox, or only at ``using``. Raises `ValueError` for a text that
    is no UUID.
    """
    message_id = id if isinstance(id, uuid.UUID) else uuid.UUID(id)
    found: list[GroupHistory] = []
    for alias in [using] if using else databases.aliases():
        found += _histories(message_id, alias)
    return sorted(found, key=lambda entry: entry.group)


def _histories(message_id: uuid.UUID, using: str) -> list[GroupHistory]:
    rows = list(
        InboxMessage.objects.using(using)
        .filter(group_name__in=databases.groups(using), message_id=message_id)
        .defer("body", "headers")
    )
    events: dict[int, list[InboxEvent]] = defaultdict(list)
    for event in _newest(InboxEvent.objects.using(using).filter(message__in=rows), "at"):
        events[event.message_id].append(event)
    quarantined: dict[str, list[InboxQuarantine]] = defaultdict(list)
    deliveries = InboxQuarantine.objects.using(using).filter(message_id=message_id)
    for delivery in _newest(deliveries.defer("body", "headers"), "arrived_at"):
        quarantined[delivery.group_name].append(delivery)
    found = [
        _taken_in(row, _timeline(row, events[row.pk], quarantined.pop(row.group_name, [])))
        for row in rows
    ]
    return found + [_refused(kept) for kept in quarantined.values()]


def _newest(rows: QuerySet[M], at: str) -> Iterable[M]:
    """The newest of these rows, the oldest of them first."""
    return reversed(rows.order_by(f"-{at}", "-id")[:_EVENTS])


def _taken_in(row: InboxMessage, events: tuple[Event, ...]) -> GroupHistory:
    return GroupHistory(
        group=row.group_name,
        topic=row.topic,
        state=State(row.state).name.lower(),
        attempts=row.attempts,
        duplicates=row.duplicates,
        received_at=row.received_at,
        processed_at=row.processed_at,
        next_attempt_at=row.next_attempt_at,
        error_class=row.error_class,
        error=row.error,
        events=events,
    )


def _refused(deliveries: Sequence[InboxQuarantine]) -> GroupHistory:
    last = deliveries[-1]
    return GroupHistory(
        group=last.group_name,
        topic=last.topic,
        state=QUARANTINED,
        attempts=0,
        duplicates=0,
        received_at=deliveries[0].arrived_at,
        processed_at=None,
        next_attempt_at=None,
        error_class="",
        error=last.detail,
        events=tuple(map(_quarantine, deliveries)),
    )


def _timeline(
    row: InboxMessage, stored: Iterable[InboxEvent], quarantined: Iterable[InboxQuarantine]
) -> tuple[Event, ...]:
    events = [Event(row.received_at, "received"), *map(_step, stored)]
    if row.processed_at is not None:
        events.append(Event(row.processed_at, "processed", _nth(row.attempts)))
    events += map(_quarantine, quarantined)
    if row.duplicates:
        times = "once" if row.duplicates == 1 else f"{row.duplicates} times, this is the last"
        events.append(Event(row.duplicate_at, "duplicate", times))
    # Stable: steps of one transaction stay as they were taken. What has no time comes last.
    return tuple(sorted(events, key=lambda event: (event.at is None, event.at or row.received_at)))


def _nth(attempt: int) -> str:
    return f"attempt {attempt}" if attempt > 1 else ""


def _step(event: InboxEvent) -> Event:
    if event.name == Happening.FAILED:
        return Event(event.at, event.name, f"attempt {event.attempt}: {event.detail}")
    by = f"by {event.actor}" if event.actor else ""
    parts = (event.detail, by, event.reason)
    return Event(event.at, event.name, ", ".join(part for part in parts if part))


def _quarantine(row: InboxQuarantine) -> Event:
    return Event(row.arrived_at, QUARANTINED, f"{row.get_reason_display()}: {row.detail}")
