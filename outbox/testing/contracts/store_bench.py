"""What the author of a store fills in for `StoreContract`, and what its tests are made of."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

from django.apps import apps
from django.db import transaction
from django.db.models import QuerySet

from outbox.exceptions import LeaseLost
from outbox.models import OutboxLane, OutboxMessage, OutboxTodo, TodoState
from outbox.runtime.proving import equal, holds, raises
from outbox.store import Entry, Failed, Lease, Store, stores
from outbox.wire import Message

_RULE: Final = "Broken rule of outbox.store.Store: "
JOINED: Final = _RULE + "add() joins the caller's transaction: all of it or nothing."
UNCHANGED: Final = _RULE + "a message is handed out as it was added."
ONE_HOLDER: Final = _RULE + "a lane belongs to one relay at a time, until its lease has ended."
LEASED: Final = _RULE + "a lease lasts as long as it was asked for, by the database's clock."
FENCED: Final = _RULE + "a relay whose lane has passed to another changes nothing (LeaseLost)."
ONE_EACH: Final = _RULE + "each settle needs the lease that the one before it gave."
ALL_SLOTS: Final = _RULE + "the lanes of a broker share all slots, and no slot is in two of them."
ORDERED: Final = _RULE + "claim() gives the new messages of the lane from the lowest position on."
READ_ONLY: Final = _RULE + "claim(), due() and busy_lanes() write nothing."
SETTLED: Final = _RULE + "what is settled as Done is gone; what has no outcome stays as it was."
HELD: Final = _RULE + "a message behind a failed one of its key is held, and no other is."
RELEASED: Final = _RULE + "what is parked goes on, in order, when the one in its way is Done."
DUE: Final = (
    _RULE + "due() gives failed messages once their time has come, by the database's clock."
)
NOTED: Final = _RULE + "what the broker said is kept, and how often it said so."
BUSY: Final = _RULE + "busy_lanes() are just the lanes with something to hand over now."

BROKER: Final = "default"
OTHER_BROKER: Final = "stream"
ME, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
LEASE: Final = timedelta(seconds=30)
NOW: Final = timedelta(0)
PAST: Final = -timedelta(seconds=1)
LATER: Final = timedelta(hours=1)
_LONG_AGO: Final = timedelta(hours=1)


class StoreBench:
    """The hooks of `StoreContract`. Each test gets an instance of its own."""

    using: str = "default"
    """The database alias."""

    def make_store(self) -> Store:
        """The store under test; by default the one that ``using`` has."""
        return stores[self.using]

    @property
    def store(self) -> Store:
        """A store as each part of the program makes its own."""
        return self.make_store()

    def _add(self, *keys: str, topic: str = "t", broker: str = BROKER) -> list[int]:
        """Add a message for each key, in a transaction of their own; their positions."""
        return self._add_messages([self._message(key, topic) for key in keys], broker)

    def _add_messages(self, messages: Sequence[Message], broker: str = BROKER) -> list[int]:
        with transaction.atomic(using=self.using):
            self.store.add([(message, broker) for message in messages])
        rows = self._messages().filter(id__in=[message.id for message in messages])
        return list(rows.order_by("seq").values_list("seq", flat=True))

    def _message(self, key: str = "", topic: str = "t", **changes: Any) -> Message:
        fields: dict[str, Any] = {
            "id": uuid.uuid4(),
            "topic": topic,
            "key": key,
            "body": b"{}",
            "source": "/contract",
            "time": dt.datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=dt.UTC),
        }
        return Message(**(fields | changes))

    def _take(
        self,
        owner: uuid.UUID = ME,
        lane: int = 0,
        lanes: int = 1,
        broker: str = BROKER,
        lease: timedelta = LEASE,
    ) -> Lease:
        held = self.store.acquire(broker, lane, lanes, owner, lease)
        if held is None:
            message = f"{ONE_HOLDER}\n  acquire() of a free lane gave None"
            raise AssertionError(message)
        return held

    def _is_taken(self, owner: uuid.UUID = OTHER, rule: str = ONE_HOLDER) -> None:
        equal(self.store.acquire(BROKER, 0, 1, owner, LEASE), None, rule)

    def _passed_on(self) -> Lease:
        """The lane passes to another relay, of which its holder does not hear."""
        expire_leases(self.using)
        return self._take(OTHER)

    def _states(self) -> dict[int, TodoState]:
        rows = self._todo().order_by("seq").values_list("seq", "state")
        return {seq: TodoState(state) for seq, state in rows}

    def _everything(self) -> list[list[dict[str, Any]]]:
        """All rows of all tables of the outbox."""
        models = apps.get_app_config("outbox").get_models()
        return [
            list(model._default_manager.using(self.using).order_by("pk").values())  # noqa: SLF001 - documented API
            for model in models
        ]

    def _loses(self, name: str, verb: Any) -> None:
        """The verb raises `LeaseLost` and changes nothing."""
        before = self._everything()
        raises(LeaseLost, f"{FENCED} Verb: {name}.", verb)
        holds(self._everything() == before, f"{FENCED} Verb: {name}.", "rows have changed")

    def _todo(self) -> QuerySet[OutboxTodo]:
        return OutboxTodo.objects.using(self.using)

    def _messages(self) -> QuerySet[OutboxMessage]:
        return OutboxMessage.objects.using(self.using)

    def _log(self) -> QuerySet[OutboxLane]:
        return OutboxLane.objects.using(self.using)


def expire_leases(using: str = "default") -> None:
    """Let the leases of all lanes end, by the database's clock."""
    lanes = OutboxLane.objects.using(using)
    for lane in lanes.all():
        rows = lanes.filter(broker=lane.broker, lane=lane.lane, seq=lane.seq)
        rows.update(lease_until=lane.lease_until - _LONG_AGO)


def make_due(using: str = "default") -> None:
    """Let the time of all retries come."""
    for row in OutboxTodo.objects.using(using).filter(state=TodoState.RETRY):
        rows = OutboxTodo.objects.using(using).filter(pk=row.pk)
        rows.update(due_at=row.due_at - _LONG_AGO)


def failed(delay: timedelta | None = LATER) -> Failed:
    """Nacked, to be tried again after a delay, or dead."""
    return Failed("nacked", "no", delay)


def seqs(page: Iterable[Entry]) -> list[int]:
    """The positions of a page."""
    return [entry.seq for entry in page]


def held_flags(page: Iterable[Entry]) -> list[tuple[int, bool]]:
    """Which of a page are held."""
    return [(entry.seq, entry.held) for entry in page]
