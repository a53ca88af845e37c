"""What a consumer writes. The guarantees live here: every write names the state it starts from."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from django.conf import settings as django_settings
from django.db import connections, transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from inbox.delivery import Delivery
from inbox.models import InboxMessage, InboxQuarantine, Reason, State
from inbox.reading import Arrival, evidence, readable_headers
from inbox.store import events
from inbox.store.events import KEPT_TEXT
from inbox.verdicts import ENDED_ITS_PROCESS, Claim, Failure, Verdict
from outbox.wire import DecodeError, Message
from outbox.wire.fingerprint import VERSION

KEPT_BODY: Final = 64 * 1024
"""Bytes of a quarantined body that are kept."""
LEASE: Final = timedelta(seconds=60)
"""When a stored retry whose run left no outcome is due again.

No handler needs to be faster: while it runs, its transaction holds the row, so the row cannot be
claimed. The lease only says how soon a run that died is tried again, and a minute keeps a handler
that kills its process from killing it all the time.
"""

GIVEN_BACK: Final = timedelta(seconds=5)
"""When a stored retry that the database's trouble interrupted is due again."""

# G4, exactly-once effect: this row and the handler's writes are one transaction. Of two copies at
# once the second waits here, on the unique index, until the first has committed or rolled back.
# It is born processed: nobody sees it before the commit, so the good case needs no UPDATE.
INSERT_ONCE: Final = """
INSERT INTO inbox_message (group_name, message_id, fingerprint, fp_version, state, attempts,
  topic, "key", source, "time", content_type, headers, body, processed_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, {processed_at})
ON CONFLICT (group_name, message_id) DO NOTHING"""


_FIELDS: Final = {field.name: field for field in InboxMessage._meta.concrete_fields}  # noqa: SLF001 - documented API

_VERDICTS: Final[Mapping[State, Verdict]] = {
    State.RECEIVED: Verdict.NOTED,
    State.PROCESSED: Verdict.DUPLICATE,
}


def admit(arrival: Arrival, using: str) -> Verdict:
    """Take the message in as processed, inside the transaction that the handler will run in."""
    if _insert(arrival, State.PROCESSED, using):
        return Verdict.RUN
    return _refuse(arrival, using)[0]


def note(arrival: Arrival, max_attempts: int, using: str) -> tuple[Verdict, Claim]:
    """Count the attempt of a possible repeat in a transaction of its own, before it runs.

    So a handler that ends its process still runs out of attempts. RUN comes with the claim.
    """
    with transaction.atomic(using, durable=True):
        if _insert(arrival, State.RECEIVED, using):
            return Verdict.RUN, Claim(arrival, 1)
        verdict, attempts = _refuse(arrival, using)
        if verdict is not Verdict.NOTED:
            return verdict, Claim(arrival)
        return _count(Claim(arrival, attempts), max_attempts, using)


def take(claim: Claim, using: str) -> bool:
    """Mark a claimed message processed, inside the handler's transaction; False if it was lost.

    The UPDATE comes first because it locks the row, on every database, until the run has ended.
    """
    return bool(
        _held(claim, using).update(
            state=State.PROCESSED, processed_at=Now(), next_attempt_at=None, body=None
        )
    )


def claim_due(group: str, max_attempts: int, using: str) -> tuple[Verdict, Claim] | None:
    """Count the next attempt of the parked message that is due longest, and hold it for `LEASE`.

    A message whose handler is running is locked and therefore skipped. None: nothing is due.
    """
    with transaction.atomic(using, durable=True):
        row = (
            InboxMessage.objects.using(using)
            .select_for_update(skip_locked=True)
            .filter(group_name=group, state=State.PARKED, next_attempt_at__lte=Now())
            .order_by("next_attempt_at")
            .first()
        )
        if row is None:
            return None
        arrival = Arrival(group, row.to_message(), bytes(row.fingerprint))
        return _count(Claim(arrival, row.attempts, State.PARKED, row.forgiven), max_attempts, using)


def fail(claim: Claim, failure: Failure, using: str) -> bool:
    """Park the message, or make it dead, in a transaction of its own.

    False when a twin has finished or taken over the message meanwhile: then nothing is changed.
    """
    with transaction.atomic(using, durable=True):
        if claim.token == 0:
            if not _insert(claim.arrival, State.RECEIVED, using):
                return False
            claim = replace(claim, token=1)
        return _end(claim, failure, using)


def give_back(claim: Claim, using: str) -> None:
    """Undo the count of an attempt that the database, and not the handler, broke off (D18)."""
    if claim.state is State.PARKED:
        _held(claim, using).update(attempts=claim.token - 1, next_attempt_at=Now() + GIVEN_BACK)
    elif claim.token:
        _held(claim, using).update(attempts=claim.token - 1)


def quarantine(
    delivery: Delivery, detail: str, using: str, *, conflict: Arrival | None = None
) -> None:
    """Keep a delivery that must not run: unreadable, or in conflict with what the group has."""
    message = _message(delivery)
    with transaction.atomic(using, durable=True):
        known = None if conflict is None else _find(conflict, using)
        InboxQuarantine.objects.using(using).create(
            group_name=delivery.group,
            message_id=None if message is None else message.id,
            reason=Reason.UNREADABLE if conflict is None else Reason.CONFLICT,
            detail=evidence(detail, KEPT_TEXT),
            fingerprint=None if conflict is None else conflict.fingerprint,
            known_fingerprint=None if known is None else bytes(known.fingerprint),
            topic="" if message is None else evidence(message.topic, KEPT_TEXT),
            headers=readable_headers(delivery.headers),
            body=delivery.body[:KEPT_BODY],
            body_size=len(delivery.body),
        )


def judge(arrival: Arrival, using: str) -> Verdict:
    """The verdict on an arrival whose id is taken; changes nothing."""
    row = _find(arrival, using)
    return Verdict.GONE if row is None else _judge(arrival, row)


def _message(delivery: Delivery) -> Message | None:
    try:
        return delivery.message
    except DecodeError:
        return None


def _find(arrival: Arrival, using: str) -> InboxMessage | None:
    return (
        InboxMessage.objects.using(using)
        .filter(group_name=arrival.group, message_id=arrival.message.id)
        .only("state", "attempts", "fingerprint", "fp_version")
        .first()
    )


def _judge(arrival: Arrival, row: InboxMessage) -> Verdict:
    # Marks of different versions say nothing about each other.
    if row.fp_version == VERSION and bytes(row.fingerprint) != arrival.fingerprint:
        return Verdict.CONFLICT
    return _VERDICTS.get(State(row.state), Verdict.KNOWN)


def _refuse(arrival: Arrival, using: str) -> tuple[Verdict, int]:
    """The verdict on an arrival whose id is taken, and the row's attempts; counts a duplicate."""
    row = _find(arrival, using)
    if row is None:
        return Verdict.GONE, 0
    verdict = _judge(arrival, row)
    if verdict is Verdict.DUPLICATE:
        twin = InboxMessage.objects.using(using).filter(pk=row.pk)
        twin.update(duplicates=F("duplicates") + 1, duplicate_at=Now())
    return verdict, row.attempts


def _insert(arrival: Arrival, state: State, using: str) -> bool:
    """Insert the row unless the pair exists; False if it does. A copy that runs is waited for."""
    connection = connections[using]
    message, processed = arrival.message, state is State.PROCESSED
    row = {
        "group_name": arrival.group,
        "message_id": message.id,
        "fingerprint": arrival.fingerprint,
        "fp_version": VERSION,
        "state": state,
        "attempts": 1,
        "topic": message.topic,
        "key": message.key,
        "source": message.source,
        "time": _stored_time(message.time),
        "content_type": message.content_type,
        "headers": dict(message.headers),
        "body": None if processed else message.body,
    }
    values = [_FIELDS[name].get_db_prep_save(value, connection) for name, value in row.items()]
    now, _ = InboxMessage.objects.using(using).query.get_compiler(using).compile(Now())
    statement = INSERT_ONCE.format(processed_at=now if processed else "NULL")
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return bool(cursor.rowcount == 1)


def _stored_time(time: dt.datetime) -> dt.datetime:
    if django_settings.USE_TZ:
        return time
    return timezone.make_naive(time, timezone.get_default_timezone())


def _held(claim: Claim, using: str) -> QuerySet[InboxMessage]:
    """The row of a claim, if the claim still holds: no later attempt, no outcome, no retry."""
    return InboxMessage.objects.using(using).filter(
        group_name=claim.arrival.group,
        message_id=claim.arrival.message.id,
        state=claim.state,
        attempts=claim.token,
        forgiven=claim.forgiven,
    )


def _count(claim: Claim, max_attempts: int, using: str) -> tuple[Verdict, Claim]:
    """Count one more attempt, or end the message whose last one left no outcome."""
    if claim.attempts >= max_attempts:
        ended = _end(claim, ENDED_ITS_PROCESS, using)
        return (Verdict.EXHAUSTED if ended else Verdict.GONE), claim
    lease = Now() + LEASE if claim.state is State.PARKED else None
    # Databases without row locks (SQLite) are fenced by the number of the attempt.
    won = _held(claim, using).update(attempts=claim.token + 1, next_attempt_at=lease)
    return (Verdict.RUN if won else Verdict.GONE), replace(claim, token=claim.token + 1)


def _end(claim: Claim, failure: Failure, using: str) -> bool:
    """Record a failure of the claimed attempt; False if the claim does not hold any more."""
    parked = failure.delay is not None
    ended = _held(claim, using).update(
        state=State.PARKED if parked else State.DEAD,
        next_attempt_at=Now() + failure.delay if failure.delay is not None else None,
        error_class=evidence(failure.error_class, 100),
        error=evidence(failure.error, KEPT_TEXT),
    )
    if ended:
        events.record_failure(claim, failure, using)
    return bool(ended)
