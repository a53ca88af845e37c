"""Leases on lanes: an append-only compare-and-set log in `outbox_lane`."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, cast

from django.db.models import BooleanField, Case, Value, When
from django.db.models.functions import Now

from outbox.conf import SLOTS
from outbox.exceptions import LeaseLost
from outbox.models import OutboxLane
from outbox.store.types import Lease

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

LOG_KEPT: Final = 1000
"""Rows of the log that are kept a lane, to see who settled what lately."""

_PRUNE_EVERY: Final = 100
"""Leases of a lane between two prunings."""

# The fence. The row is written only if its predecessor is still there and has no successor: a
# relay whose lease has passed to another finds the successor and changes nothing (G6). A pruned
# predecessor means that the log is at least LOG_KEPT rows ahead. The predecessor's owner counts
# too: in a database restored from a backup, positions are given a second time.
_APPEND = """
INSERT INTO outbox_lane
    (broker, lane, seq, epoch, owner, lease_until, published, failed, first_done, last_done, lanes,
     at)
SELECT broker, lane, seq + 1, epoch + %s, %s, {lease_until}, %s, %s, %s, %s,
    coalesce(CAST(%s AS smallint), lanes), {now}
FROM outbox_lane WHERE broker = %s AND lane = %s AND seq = %s AND owner = %s
ON CONFLICT DO NOTHING
"""

# The first row of a lane: given back before anybody held it.
_FIRST = """
INSERT INTO outbox_lane
    (broker, lane, seq, epoch, owner, lease_until, published, failed, lanes, at)
VALUES (%s, %s, 0, 0, %s, {now}, 0, 0, 1, {now})
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Work:
    """What a page did, as the log keeps it."""

    published: int = 0
    failed: int = 0
    first_done: int | None = None
    last_done: int | None = None


_NO_WORK: Final = Work()
_OWNER: Final = OutboxLane._meta.get_field("owner")  # noqa: SLF001 - documented API


class Lanes:
    """The lane log of one database. ``now`` and ``later`` are SQL of the database's own clock."""

    def __init__(self, connection: BaseDatabaseWrapper, now: str, later: str) -> None:
        """``later`` takes one parameter, seconds from now."""
        self._connection = connection
        self._append = _APPEND.format(lease_until=later, now=now)
        self._first = _FIRST.format(now=now)

    def acquire(
        self, broker: str, lane: int, lanes: int, owner: uuid.UUID, lease: timedelta
    ) -> Lease | None:
        """Take a lane whose lease has ended; None while another relay holds it."""
        newest = self._newest(broker, lane)
        if newest is None:
            with self._connection.cursor() as cursor:
                cursor.execute(self._first, [broker, lane, self._uuid(owner)])
            newest = self._newest(broker, lane)
        if newest is None or not newest[3]:
            return None
        seq, epoch, before, _free = newest
        slots = tuple(range(lane, SLOTS, lanes))
        held = Lease(broker, lane, slots, owner, epoch + 1, seq + 1, _expiry(lease))
        if not self._insert(held, lease, after=before, begins_of=lanes):
            return None
        if held.epoch % _PRUNE_EVERY == 0:
            self._prune(held)
        return held

    def move(self, held: Lease, lease: timedelta, work: Work = _NO_WORK) -> Lease:
        """Write the next row of the log: renews the lease, or gives it back with ``lease`` 0.

        Must be the first write of a settling transaction. Raises `LeaseLost`.
        """
        moved = held.moved(_expiry(lease))
        if not self._insert(moved, lease, after=held.owner, work=work):
            message = (
                f"Lane {held.lane} of broker {held.broker!r} has passed to another relay; what "
                "this one did is not recorded and is done again."
            )
            raise LeaseLost(message)
        return moved

    def _insert(
        self,
        row: Lease,
        lease: timedelta,
        *,
        after: uuid.UUID,
        begins_of: int | None = None,
        work: Work = _NO_WORK,
    ) -> bool:
        parameters = [
            0 if begins_of is None else 1,
            self._uuid(row.owner),
            lease.total_seconds(),
            work.published,
            work.failed,
            work.first_done,
            work.last_done,
            begins_of,
            row.broker,
            row.lane,
            row.seq - 1,
            self._uuid(after),
        ]
        with self._connection.cursor() as cursor:
            cursor.execute(self._append, parameters)
            return bool(cursor.rowcount == 1)

    def _newest(self, broker: str, lane: int) -> tuple[int, int, uuid.UUID, bool] | None:
        free = Case(
            When(lease_until__lte=Now(), then=Value(value=True)),
            default=Value(value=False),
            output_field=BooleanField(),
        )
        rows = OutboxLane.objects.using(self._connection.alias).filter(broker=broker, lane=lane)
        return rows.order_by("-seq").values_list("seq", "epoch", "owner", free).first()

    def _prune(self, held: Lease) -> None:
        rows = OutboxLane.objects.using(self._connection.alias)
        rows.filter(broker=held.broker, lane=held.lane, seq__lt=held.seq - LOG_KEPT).delete()

    def _uuid(self, value: uuid.UUID) -> uuid.UUID | str:
        return cast(uuid.UUID | str, _OWNER.get_db_prep_value(value, self._connection))


def _expiry(lease: timedelta) -> float:
    return time.monotonic() + lease.total_seconds()
