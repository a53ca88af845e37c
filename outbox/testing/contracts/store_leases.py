"""The contract of a store: who may drain a lane, and what happens to one who no longer may."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta

from django.db import connections, transaction
from django.db.models.functions import Now

from outbox.conf import SLOTS
from outbox.exceptions import LeaseLost
from outbox.runtime.proving import equal, holds, raises
from outbox.store import Done, Lease, Outcomes, Parked
from outbox.testing.contracts.store_bench import (
    ALL_SLOTS,
    BROKER,
    FENCED,
    LEASE,
    LEASED,
    ME,
    NOTED,
    NOW,
    ONE_EACH,
    ONE_HOLDER,
    OTHER,
    OTHER_BROKER,
    SETTLED,
    StoreBench,
    expire_leases,
    failed,
)


class LeaseTests(StoreBench):
    """Leases and the fence."""

    def test_one_relay_at_a_time(self) -> None:
        held = self._take()
        equal((held.epoch, held.owner, held.slots), (1, ME, tuple(range(SLOTS))), ONE_HOLDER)
        self._is_taken(OTHER)
        self._is_taken(ME)

    def test_lanes_and_brokers_are_apart(self) -> None:
        self._take()
        self._take(OTHER, lane=1, lanes=2)
        self._take(OTHER, broker=OTHER_BROKER)

    def test_the_lanes_share_all_slots(self) -> None:
        for lanes in (1, 3, 8, 64):
            held = [self._take(lane=n, lanes=lanes, broker=f"of {lanes}") for n in range(lanes)]
            slots = sorted(slot for lease in held for slot in lease.slots)
            equal(slots, list(range(SLOTS)), ALL_SLOTS)

    def test_a_lease_ends_by_the_clock_of_the_database(self) -> None:
        self._take()
        taken = self._passed_on()
        equal((taken.epoch, taken.owner), (2, OTHER), LEASED)
        self._is_taken(ME)

    def test_a_lease_is_counted_from_now(self) -> None:
        held = self._take()
        left = self._log().filter(
            seq=held.seq,
            lease_until__gt=Now() + LEASE - timedelta(seconds=10),
            lease_until__lte=Now() + LEASE,
        )
        holds(left.exists(), LEASED, list(self._log().values()))
        total = LEASE.total_seconds()
        holds(total - 10 < held.remaining() <= total, LEASED, held.remaining())

    def test_a_lease_is_counted_from_now_also_in_an_old_transaction(self) -> None:
        """A lease from the beginning of the transaction would have ended already."""
        with transaction.atomic(using=self.using):
            list(self._log().all()[:1])
            time.sleep(1.5)
            self._take(lease=timedelta(seconds=1.2))
            self._is_taken(rule=LEASED)

    def test_given_back_it_is_free(self) -> None:
        held = self._take()
        self.store.give_back(held)
        row = self._log().get(lane=0, seq=held.seq + 1)
        holds(row.lease_until <= row.at, LEASED, row)
        equal(self._take(OTHER).epoch, 2, ONE_HOLDER)

    def test_renewed_it_is_taken(self) -> None:
        held = self._take()
        expire_leases(self.using)
        held = self.store.renew(held, LEASE)
        equal(held.epoch, 1, ONE_HOLDER)
        self._is_taken()
        self.store.give_back(held)

    def test_settling_renews_or_gives_back(self) -> None:
        held = self._take()
        expire_leases(self.using)
        held = self.store.settle(held, {}, LEASE)
        self._is_taken()
        self.store.settle(held, {}, NOW)
        self._take(OTHER)

    def test_settling_notes_what_it_did(self) -> None:
        held = self._take()
        one, two, three, four = self._add("", "", "", "")
        outcomes: Outcomes = {one: Done(), two: Done(), three: failed(), four: Parked()}
        self.store.settle(held, outcomes, LEASE)
        row = self._log().order_by("-seq").first()
        holds(row, NOTED)
        noted = (row.published, row.failed, row.owner) if row else None
        equal(noted, (2, 1, ME), NOTED)

    def test_a_zombie_changes_nothing(self) -> None:
        held = self._take()
        (seq,) = self._add("k")
        self._passed_on()
        for name, verb in self._verbs(held, seq).items():
            self._loses(name, verb)
        error = raises(LeaseLost, FENCED, lambda: self.store.renew(held, LEASE))
        holds(f"Lane 0 of broker {BROKER!r}" in str(error), FENCED, error)

    def test_nor_after_the_other_has_given_the_lane_back(self) -> None:
        held = self._take()
        (seq,) = self._add("k")
        self.store.give_back(self._passed_on())
        for name, verb in self._verbs(held, seq).items():
            self._loses(name, verb)

    def test_nor_when_its_message_has_failed_before(self) -> None:
        """What is due is fenced as what is new is."""
        held = self._take()
        (seq, second) = self._add("k", "k")
        held = self.store.settle(held, {seq: failed(), second: Parked()}, LEASE)
        self._passed_on()
        for name, verb in self._verbs(held, seq).items():
            self._loses(name, verb)

    def test_a_lease_is_good_for_one_settle(self) -> None:
        held = self._take()
        (seq,) = self._add("")
        self.store.settle(held, {}, LEASE)
        settle = self._verbs(held, seq)["done"]
        raises(LeaseLost, ONE_EACH, settle)

    def test_an_expired_lease_that_nobody_took_still_counts(self) -> None:
        held = self._take()
        (seq,) = self._add("")
        expire_leases(self.using)
        self.store.settle(held, {seq: Done()}, LEASE)
        equal(self._states(), {}, SETTLED)

    def test_a_restored_database_does_not_unfence_a_zombie(self) -> None:
        """Positions that the log had before the backup was taken are given a second time."""
        held = self._take()
        (seq,) = self._add("")
        moved = self.store.renew(held, LEASE)
        self._log().filter(seq__gte=held.seq).delete()
        again = self._take(OTHER)
        again = self.store.renew(again, LEASE)
        equal(again.seq, moved.seq, ONE_HOLDER)
        self._loses("done", lambda: self.store.settle(moved, {seq: Done()}, LEASE))
        self.store.settle(again, {seq: Done()}, LEASE)

    def test_of_two_relays_one_gets_the_lane(self) -> None:
        got: list[list[int]] = [[], []]
        together = threading.Barrier(2, timeout=60)
        count = 32

        def race(number: int) -> None:
            owner = uuid.uuid4()
            for lane in range(count):
                together.wait()
                if self.store.acquire(BROKER, lane, SLOTS, owner, LEASE):
                    got[number].append(lane)

        self._in_threads(lambda: race(0), lambda: race(1))
        equal(sorted(got[0] + got[1]), list(range(count)), ONE_HOLDER)

    def test_a_settle_that_is_under_way_holds_up_the_next_relay(self) -> None:
        """The lease ran out while a settle was being written: one of the two wins, never both."""
        (one,) = self._add("")
        held = self._take()
        expire_leases(self.using)
        taken: list[Lease | None] = []

        def take() -> None:
            try:
                taken.append(self.store.acquire(BROKER, 0, 1, OTHER, LEASE))
            finally:
                connections[self.using].close()

        thread = threading.Thread(target=take)
        with transaction.atomic(using=self.using):
            self.store.settle(held, {one: Done()}, LEASE)
            thread.start()
            thread.join(0.3)
        thread.join()
        equal(taken, [None], FENCED)
        equal(self._states(), {}, SETTLED)

    def _verbs(self, held: Lease, seq: int) -> dict[str, Callable[[], object]]:
        store = self.store
        return {
            "done": lambda: store.settle(held, {seq: Done()}, LEASE),
            "failed": lambda: store.settle(held, {seq: failed()}, LEASE),
            "dead": lambda: store.settle(held, {seq: failed(None)}, LEASE),
            "parked": lambda: store.settle(held, {seq: Parked()}, LEASE),
            "nothing": lambda: store.settle(held, {}, LEASE),
            "renew": lambda: store.renew(held, LEASE),
            "give back": lambda: store.give_back(held),
        }

    def _in_threads(self, *jobs: Callable[[], None]) -> None:
        def run(job: Callable[[], None]) -> None:
            try:
                job()
            finally:
                connections[self.using].close()

        threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
