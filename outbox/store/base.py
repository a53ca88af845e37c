"""All SQL of the outbox, in the form that every database understands (engine H: pending rows).

A publisher inserts message and todo row in its own transaction. A relay takes a lane by a lease,
reads the lane's pages and, once the broker has answered, settles a page in one short transaction
whose first statement is the fence.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from django.db import connections, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from outbox.conf import SLOTS
from outbox.models import OutboxMessage, OutboxTodo, TodoState
from outbox.store.events import Noted, note, storable
from outbox.store.lanes import Lanes, Work
from outbox.store.types import Done, Entry, Failed, Lease, Outcomes, Parked
from outbox.wire import Message

_ERROR_LENGTH: Final = 2000
_BEHIND: Final = "behind an earlier message of its key"

# One look-up a slot, whatever the backlog: a DISTINCT would walk all of it, and so would the hash
# join that PostgreSQL makes of an EXISTS. The LIMIT keeps it from making one.
_SLOTS: Final = ", ".join(f"({slot})" for slot in range(SLOTS))
_BUSY_SLOTS: Final = """
WITH s (slot) AS (VALUES {slots})
SELECT s.slot FROM s WHERE (
    SELECT 1 FROM outbox_todo t
    WHERE t.broker = %s AND t.state = 0 AND t.slot = s.slot LIMIT 1
) IS NOT NULL
UNION
SELECT t.slot FROM outbox_todo t WHERE t.broker = %s AND t.state = 1 AND t.due_at <= {now}
"""


def slot_of(message: Message) -> int:
    """The slot of a message: by its key, so that one key has one slot; else by its id."""
    text = message.key.encode() if message.key else message.id.bytes
    return zlib.crc32(text) % SLOTS


class Store:
    """The verbs of one database. Every comparison of times uses that database's clock."""

    now: str
    """SQL: the database's time when the statement began; not when the transaction did (D8), nor a
    clock that moves while an index is read, for which no index can be used."""
    later: str
    """SQL: ``now`` plus one parameter in seconds."""

    oldest: tuple[int, ...] = ()
    """The first version of the database that the SQL is for; none: whatever Django supports."""

    def __init__(self, alias: str) -> None:
        """The store of a database alias."""
        self.alias = alias

    def add(self, messages: Sequence[tuple[Message, str]]) -> None:
        """Write messages, each with its broker's alias, in the caller's transaction."""
        rows = [
            OutboxMessage(
                id=message.id,
                created_at=message.time,
                slot=slot_of(message),
                broker=broker,
                topic=message.topic,
                source=message.source,
                key=message.key,
                content_type=message.content_type,
                headers=dict(message.headers),
                body=message.body,
            )
            for message, broker in messages
        ]
        stored = OutboxMessage.objects.using(self.alias).bulk_create(rows)
        self._todo().bulk_create(
            OutboxTodo(seq=row.seq, broker=row.broker, slot=row.slot, key=row.key) for row in stored
        )

    def busy_lanes(self, broker: str, lanes: int) -> list[int]:
        """The lanes that have something to hand over now."""
        with connections[self.alias].cursor() as cursor:
            cursor.execute(_BUSY_SLOTS.format(slots=_SLOTS, now=self.now), [broker, broker])
            return sorted({slot % lanes for (slot,) in cursor.fetchall()})

    def acquire(
        self, broker: str, lane: int, lanes: int, owner: uuid.UUID, lease: timedelta
    ) -> Lease | None:
        """Take a lane whose lease has ended; None while another relay holds it."""
        return self._lanes().acquire(broker, lane, lanes, owner, lease)

    def renew(self, held: Lease, lease: timedelta) -> Lease:
        """Give a lease a new life from now on. Raises `LeaseLost`."""
        return self._lanes().move(held, lease)

    def give_back(self, held: Lease) -> None:
        """End a lease, so that the next relay need not wait for it. Raises `LeaseLost`."""
        self._lanes().move(held, timedelta(0))

    def claim(self, held: Lease, limit: int) -> list[Entry]:
        """The lane's next new messages in their order, at most ``limit``. Writes nothing.

        One relay a lane at a time, and each page from the lowest position on: that is the order of
        a key.
        """
        todo = self._new(held, limit)
        keys = {key for _seq, key, _attempts in todo if key}
        return self._entries(todo, self._blocked(held.broker, keys) if keys else set())

    def due(self, held: Lease, limit: int) -> list[Entry]:
        """The lane's messages whose next attempt is due, at most ``limit``. Writes nothing."""
        todo = self._todo().filter(
            broker=held.broker, state=TodoState.RETRY, due_at__lte=Now(), slot__in=held.slots
        )
        rows = list(todo.order_by("due_at", "seq")[:limit])
        entries = self._entries([(row.seq, row.key, row.attempts) for row in rows], set())
        return [
            replace(entry, forgiven=row.forgiven, revision=row.revision)
            for entry, row in zip(entries, rows, strict=True)
        ]

    def settle(self, held: Lease, outcomes: Outcomes, lease: timedelta) -> Lease:
        """Record what became of a page, in one short transaction fenced by the lease.

        ``lease`` is the life of the lease from now on; 0 gives the lane back. Raises `LeaseLost`,
        and then nothing was recorded.
        """
        done = [seq for seq, outcome in outcomes.items() if isinstance(outcome, Done)]
        failed = {seq: o for seq, o in outcomes.items() if isinstance(o, Failed)}
        parked = [seq for seq, outcome in outcomes.items() if isinstance(outcome, Parked)]
        known = self._known(outcomes)
        plain = [seq for seq in done if seq not in known]
        span = (min(plain), max(plain)) if plain else (None, None)
        with transaction.atomic(using=self.alias):
            moved = self._lanes().move(held, lease, Work(len(done), len(failed), *span))
            if known:
                # A person may be at them too. Both take them in this order, so neither gets stuck.
                rows = self._todo().filter(seq__in=known).order_by("seq").select_for_update()
                list(rows.values_list("seq"))
            # Parked before removed: who is parked behind a message that is done goes on at once.
            if parked:
                self._park(parked)
            if failed:
                self._fail(failed)
            if done:
                self._remove(held, done, known)
        return moved

    def _new(self, held: Lease, limit: int) -> list[tuple[int, str, int]]:
        todo = self._todo().filter(broker=held.broker, state=TodoState.NEW, slot__in=held.slots)
        return list(todo.order_by("seq").values_list("seq", "key", "attempts")[:limit])

    def _blocked(self, broker: str, keys: set[str]) -> set[str]:
        """Those of the keys whose earlier messages are in the way."""
        rows = self._todo().filter(broker=broker, key__in=keys, state__gt=TodoState.NEW)
        return set(rows.values_list("key", flat=True))

    def _entries(self, todo: list[tuple[int, str, int]], blocked: set[str]) -> list[Entry]:
        rows = OutboxMessage.objects.using(self.alias).in_bulk([seq for seq, _, _ in todo])
        return [
            Entry(seq, rows[seq].to_message(), attempts, held=key in blocked)
            for seq, key, attempts in todo
        ]

    def _known(self, seqs: Collection[int]) -> set[int]:
        """Those that have a history; such as went wrong before, or waited behind one that did."""
        # By the state as well: a relay of an earlier release counts no revisions.
        has_history = Q(revision__gt=0) | Q(state__gt=TodoState.NEW)
        rows = self._todo().filter(has_history, seq__in=list(seqs))
        return set(rows.values_list("seq", flat=True))

    def _park(self, parked: Sequence[int]) -> None:
        rows = self._todo().filter(seq__in=parked)
        rows.update(state=TodoState.PARKED, revision=F("revision") + 1)
        note(self.alias, [Noted(seq=seq, name="parked", detail=_BEHIND) for seq in parked])

    def _remove(self, held: Lease, done: Sequence[int], known: set[int]) -> None:
        if late := known.intersection(done):
            rows = list(self._todo().filter(seq__in=late))
            # Whoever waited behind a message that had failed goes on; their positions keep the
            # order.
            keys = {row.key for row in rows if row.key and row.state == TodoState.RETRY}
            if keys:
                chain = self._todo().filter(broker=held.broker, key__in=keys)
                chain.filter(state=TodoState.PARKED).update(state=TodoState.NEW)
            published = [
                Noted(seq=row.seq, name="published", attempt=row.attempts + 1) for row in rows
            ]
            note(self.alias, published)
        self._todo().filter(seq__in=done).delete()

    def _fail(self, failed: Mapping[int, Failed]) -> None:
        rows = list(self._todo().filter(seq__in=failed))
        for row in rows:
            outcome = failed[row.seq]
            if outcome.revision is None or outcome.revision == row.revision:
                row.state = TodoState.DEAD if outcome.delay is None else TodoState.RETRY
                # The database's clock plus a duration: no host's clock decides when it is due.
                row.due_at = Now() + (outcome.delay or timedelta(0))
            row.attempts += 1
            row.revision += 1
            row.error_class = outcome.error_class[:100]
            row.error = storable(outcome.error)[:_ERROR_LENGTH]
        fields = ["attempts", "revision", "error_class", "error", "state", "due_at"]
        self._todo().bulk_update(rows, fields)
        note(self.alias, [_failure(row) for row in rows])

    def _todo(self) -> QuerySet[OutboxTodo]:
        return OutboxTodo.objects.using(self.alias)

    def _lanes(self) -> Lanes:
        return Lanes(connections[self.alias], self.now, self.later)


def _failure(row: OutboxTodo) -> Noted:
    name = "dead" if row.state == TodoState.DEAD else "failed"
    detail = f"{row.error_class}: {row.error}"
    return Noted(seq=row.seq, name=name, attempt=row.attempts, detail=detail)
