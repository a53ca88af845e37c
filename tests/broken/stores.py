"""Stores with one fault each, over SQLite."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from django.db import connections

from outbox.conf import SLOTS
from outbox.exceptions import LeaseLost
from outbox.models import TodoState
from outbox.store import Done, Failed
from outbox.store.base import Store
from outbox.store.lanes import Lanes
from outbox.store.sqlite import SQLiteStore
from outbox.testing.contracts.store_bench import expire_leases


class CommitsItself(SQLiteStore):
    def add(self, messages):
        super().add(messages)
        connections[self.alias].connection.commit()


class AltersBodies(SQLiteStore):
    def add(self, messages):
        super().add([(dataclasses.replace(m, body=m.body.strip(b"\x00")), b) for m, b in messages])


class Unfenced(SQLiteStore):
    def _lanes(self):
        class Open(Lanes):
            def move(self, held, *args):
                try:
                    return super().move(held, *args)
                except LeaseLost:
                    return held

        return Open(connections[self.alias], self.now, self.later)


class UnfencedGiveBack(SQLiteStore):
    def give_back(self, held):
        newest = self._lanes()._newest(held.broker, held.lane)
        super().give_back(dataclasses.replace(held, owner=newest[2], seq=newest[0]))


class TwoHolders(SQLiteStore):
    def acquire(self, broker, lane, lanes, owner, lease):
        expire_leases(self.alias)
        return super().acquire(broker, lane, lanes, owner, lease)


class LeavesNoteOfNothing(SQLiteStore):
    def settle(self, held, outcomes, lease):
        moved = super().settle(held, outcomes, lease)
        from outbox.models import OutboxLane

        OutboxLane.objects.using(self.alias).filter(seq=moved.seq).update(published=0)
        return moved


class AllSlotsForAll(SQLiteStore):
    def acquire(self, broker, lane, lanes, owner, lease):
        held = super().acquire(broker, lane, lanes, owner, lease)
        return held and dataclasses.replace(held, slots=tuple(range(SLOTS)))


class LongLeases(SQLiteStore):
    def acquire(self, broker, lane, lanes, owner, lease):
        return super().acquire(broker, lane, lanes, owner, 3 * lease)


class RenewsForNoTime(SQLiteStore):
    def renew(self, held, lease):
        return super().renew(held, timedelta(0))


class KeepsWhatIsGivenBack(SQLiteStore):
    def give_back(self, held):
        super().renew(held, timedelta(hours=1))


class LastFirst(SQLiteStore):
    def _new(self, held, limit):
        return super()._new(held, limit)[::-1]


class MarksWhatItClaims(SQLiteStore):
    def claim(self, held, limit):
        page = super().claim(held, limit)
        self._todo().filter(seq__in=[entry.seq for entry in page]).update(attempts=7)
        return page


class DoneIsNotGone(SQLiteStore):
    def _remove(self, held, done, known):
        pass


class HoldsNobody(SQLiteStore):
    def _blocked(self, broker, keys):
        return set()


class HoldsTheKeyless(SQLiteStore):
    def _entries(self, todo, blocked):
        return super()._entries(todo, {*blocked, ""})


class ReleasesNobody(SQLiteStore):
    def _remove(self, held, done, known):
        self._todo().filter(seq__in=done).delete()


class ReleasesTooEarly(SQLiteStore):
    def settle(self, held, outcomes, lease):
        moved = super().settle(held, outcomes, lease)
        self._todo().filter(state=TodoState.PARKED).update(state=TodoState.NEW)
        return moved


class DueAtOnce(SQLiteStore):
    def _fail(self, failed):
        super()._fail(
            {
                seq: each if each.delay is None else dataclasses.replace(each, delay=timedelta(0))
                for seq, each in failed.items()
            }
        )


class DeadIsRetried(SQLiteStore):
    def _fail(self, failed):
        super()._fail(
            {
                seq: dataclasses.replace(each, delay=each.delay or timedelta(0))
                for seq, each in failed.items()
            }
        )


class CountsNoAttempts(SQLiteStore):
    def _fail(self, failed):
        super()._fail(failed)
        self._todo().filter(seq__in=failed).update(attempts=1)


class OneErrorForAll(SQLiteStore):
    def _fail(self, failed):
        first = next(iter(failed.values()))
        super()._fail({seq: Failed(first.error_class, "?", o.delay) for seq, o in failed.items()})


class BusyAllTheTime(SQLiteStore):
    def busy_lanes(self, broker, lanes):
        return list(range(lanes))


class NeverBusy(SQLiteStore):
    def busy_lanes(self, broker, lanes):
        return []


class SettlesUnknown(SQLiteStore):
    """What has no outcome is taken for Done."""

    def settle(self, held, outcomes, lease):
        page = Store.claim(self, held, 1000)
        rest = {entry.seq: Done() for entry in page if entry.seq not in outcomes}
        return super().settle(held, {**outcomes, **rest}, lease)
