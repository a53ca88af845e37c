"""A person's retry: what is parked or dead becomes due now."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from inbox.models import Happening, InboxEvent, InboxMessage, State
from inbox.reading import evidence
from inbox.store.events import KEPT_DETAIL

BATCH: Final = 500
"""Rows that one transaction changes."""

_WAITING: Final = (State.PARKED, State.DEAD)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A message that was left as it is."""

    id: uuid.UUID
    group: str
    reason: str


@dataclass(slots=True)
class Change:
    """What a change did: how many rows matched, which were changed, which were not."""

    matched: int = 0
    changed: list[InboxMessage] = field(default_factory=list)
    """As they were before, without body and headers."""
    skipped: list[Skipped] = field(default_factory=list)


def retry(rows: QuerySet[InboxMessage], *, actor: str, reason: str = "") -> Iterator[Change]:
    """Make these messages due now, at most `BATCH` in a transaction; yields after each.

    Their attempts stay, and another round of MAX_ATTEMPTS is granted. Left alone is what is neither
    parked nor dead, and what a consumer runs at this moment. Each change is in the timeline, with
    its actor and reason.
    """
    last = 0
    while True:
        batch = rows.filter(pk__gt=last).order_by("pk")
        pks = list(batch.values_list("pk", flat=True)[:BATCH])
        if pks:
            yield _retry(pks, rows.db, evidence(actor, 150), evidence(reason, KEPT_DETAIL))
        if len(pks) < BATCH:
            return
        last = pks[-1]


def _retry(pks: list[int], using: str, actor: str, reason: str) -> Change:
    mine = InboxMessage.objects.using(using).filter(pk__in=pks).defer("body", "headers")
    with transaction.atomic(using):
        # A message that is being run is locked by the transaction of its handler.
        held = list(
            mine.filter(state__in=_WAITING).order_by("pk").select_for_update(skip_locked=True)
        )
        # A run that is counted and not begun loses its claim by the change of `forgiven`.
        mine.filter(pk__in=[row.pk for row in held], state__in=_WAITING).update(
            state=State.PARKED, next_attempt_at=Now(), forgiven=F("attempts")
        )
        InboxEvent.objects.using(using).bulk_create(
            InboxEvent(
                message=row,
                name=Happening.RETRIED,
                attempt=row.attempts,
                detail=f"was {State(row.state).name.lower()} after attempt {row.attempts}",
                actor=actor,
                reason=reason,
            )
            for row in held
        )
    left = mine.exclude(pk__in=[row.pk for row in held])
    return Change(len(pks), held, [_skipped(row) for row in left])


def _skipped(row: InboxMessage) -> Skipped:
    reason = f"it is {State(row.state).name.lower()}"
    if row.state in _WAITING:
        reason = "a consumer runs it at this moment"
    return Skipped(row.message_id, row.group_name, reason)
