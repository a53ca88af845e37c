"""A person's retry: due again, whatever the schedule was."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from django.db import connections, transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Now

from outbox.models import OutboxMessage, OutboxTodo, TodoState
from outbox.store.events import Noted, note

RETRIED: Final = (TodoState.RETRY, TodoState.DEAD)

_REASONS: Final[dict[int | None, str]] = {
    None: "already published",
    TodoState.NEW: "not handed over yet",
    TodoState.PARKED: "waits behind an earlier message of its key",
}

_JUST_CHANGED: Final = "changed at this very moment, try again"


@dataclass(slots=True)
class Retried:
    """What became of the messages of a retry. ``brokers`` are those with something to do now."""

    changed: list[uuid.UUID] = field(default_factory=list)
    skipped: list[tuple[uuid.UUID, str]] = field(default_factory=list)
    brokers: set[str] = field(default_factory=set)


def retry(  # noqa: PLR0913 - who, what, when and why
    using: str,
    positions: Sequence[int],
    *,
    actor: str,
    reason: str = "",
    delay: timedelta = timedelta(0),
    reset_attempts: bool = False,
) -> Retried:
    """Make retrying and dead messages due ``delay`` from now, in one transaction.

    A dead one gets one more round of MAX_ATTEMPTS, and keeps its place at the head of its key:
    who is parked behind it goes on once it is published. ``reset_attempts`` counts from 0 again.
    Each change is an event in the same transaction. What is neither is skipped, with the reason.
    """
    with transaction.atomic(using=using):
        if not connections[using].features.has_select_for_update:
            # SQLite: a transaction that begins by reading may find that it cannot write any more.
            OutboxTodo.objects.using(using).filter(seq__in=positions[:1]).update(seq=F("seq"))
        # Locked: a relay may be settling them. If it was first, this waits and sees what became of
        # them; if it comes later, it sees by the revision that the schedule is not its own.
        todo = OutboxTodo.objects.using(using).filter(seq__in=positions, state__in=RETRIED)
        rows = {row.seq: row for row in todo.order_by("seq").select_for_update()}
        _make_due(using, rows, delay, reset_attempts=reset_attempts)
        note(
            using,
            [
                Noted(seq, "retried", detail=_detail(row, delay), actor=actor, reason=reason)
                for seq, row in rows.items()
            ],
        )
        return _outcome(using, positions, rows)


def _make_due(
    using: str, rows: dict[int, OutboxTodo], delay: timedelta, *, reset_attempts: bool
) -> None:
    kept = {"forgiven": Case(When(state=TodoState.DEAD, then=F("attempts")), default=F("forgiven"))}
    reset = {"attempts": Value(0), "forgiven": Value(0)}
    OutboxTodo.objects.using(using).filter(seq__in=rows).update(
        state=TodoState.RETRY,
        due_at=Now() + delay,
        revision=F("revision") + 1,
        **(reset if reset_attempts else kept),
    )


def _outcome(using: str, positions: Sequence[int], rows: dict[int, OutboxTodo]) -> Retried:
    ids = dict(
        OutboxMessage.objects.using(using).filter(seq__in=positions).values_list("seq", "id")
    )
    others = OutboxTodo.objects.using(using).filter(Q(seq__in=positions) & ~Q(seq__in=rows))
    states = dict(others.values_list("seq", "state"))
    outcome = Retried(brokers={row.broker for row in rows.values()})
    for seq in positions:
        if seq in rows:
            outcome.changed.append(ids[seq])
        elif seq in ids:
            outcome.skipped.append((ids[seq], _REASONS.get(states.get(seq), _JUST_CHANGED)))
    return outcome


def _detail(row: OutboxTodo, delay: timedelta) -> str:
    was = "dead" if row.state == TodoState.DEAD else "retrying"
    when = f", due in {delay}" if delay else ""
    return f"was {was} after {row.attempts} attempts{when}"
