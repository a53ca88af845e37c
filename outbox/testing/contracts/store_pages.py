"""The contract of a store: what is added, what a page holds, and what is due."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta

from django.db import transaction
from django.db.models.functions import Now

from outbox.runtime.proving import equal, holds
from outbox.store import Done, Outcomes, Parked
from outbox.store.base import slot_of
from outbox.testing.contracts.store_bench import (
    ALL_SLOTS,
    BROKER,
    BUSY,
    DUE,
    JOINED,
    LATER,
    LEASE,
    ME,
    NOW,
    ORDERED,
    OTHER_BROKER,
    PAST,
    READ_ONLY,
    SETTLED,
    UNCHANGED,
    StoreBench,
    expire_leases,
    failed,
    seqs,
)


class _Undo(Exception):  # noqa: N818 - as `raise _Undo`
    pass


class PageTests(StoreBench):
    """Adding, claiming and what is due."""

    def test_what_is_rolled_back_was_never_added(self) -> None:
        before = self._everything()
        with self._undone():
            self.store.add([(self._message("k"), BROKER), (self._message(), BROKER)])
        holds(self._everything() == before, JOINED, "rows are left after a rollback")

    def test_a_savepoint_takes_back_only_its_own(self) -> None:
        kept = self._message()
        with transaction.atomic(using=self.using):
            self.store.add([(kept, BROKER)])
            with self._undone():
                self.store.add([(self._message(), BROKER)])
        page = self.store.claim(self._take(), 10)
        equal([entry.message for entry in page], [kept], JOINED)

    def test_any_number_is_added_at_once(self) -> None:
        added = self._add(*[""] * 7000)
        equal(len(added), 7000, JOINED)
        equal(seqs(self.store.claim(self._take(), 10_000)), added, ORDERED)

    def test_the_message_as_it_was_added(self) -> None:
        sent = [
            self._message("k", "a", body='{"é":1}'.encode(), headers={"h": "1", "ü": "世界"}),
            self._message(body=b"\x00\xff", content_type="image/png"),
            self._message(body=b""),
        ]
        self._add_messages(sent)
        page = self.store.claim(self._take(), 10)
        equal([entry.message for entry in page], sent, UNCHANGED)

    def test_in_order_page_by_page(self) -> None:
        added = self._add(*(str(n) for n in range(25)))
        held = self._take()
        page = self.store.claim(held, 10)
        equal(seqs(page), added[:10], ORDERED)
        equal(seqs(self.store.claim(held, 10)), added[:10], READ_ONLY)
        equal([(entry.attempts, entry.held) for entry in page], [(0, False)] * 10, UNCHANGED)
        held = self.store.settle(held, dict.fromkeys(added[:10], Done()), LEASE)
        equal(seqs(self.store.claim(held, 10)), added[10:20], SETTLED)
        held = self.store.settle(held, {added[10]: Done(), added[12]: Done()}, LEASE)
        equal(seqs(self.store.claim(held, 5)), [added[11], *added[13:17]], SETTLED)

    def test_in_order_also_where_rows_have_moved(self) -> None:
        """A row that was written again lies behind those that were written later."""
        held = self._take()
        added = self._add(*["k"] * 12)
        outcomes = dict.fromkeys(added[1:6], Parked())
        held = self.store.settle(held, {added[0]: failed(PAST), **outcomes}, LEASE)
        held = self.store.settle(held, {added[0]: Done()}, LEASE)
        equal(seqs(self.store.claim(held, 3)), added[1:4], ORDERED)

    def test_only_the_slots_of_the_lane(self) -> None:
        added = self._add(*(str(n) for n in range(60)))
        rows = self._messages().in_bulk(added)
        found: list[int] = []
        for lane in range(8):
            page = seqs(self.store.claim(self._take(lane=lane, lanes=8), 100))
            holds(all(rows[seq].slot % 8 == lane for seq in page), ALL_SLOTS, (lane, page))
            equal(page, sorted(page), ORDERED)
            found += page
        equal(sorted(found), added, ALL_SLOTS)

    def test_only_the_broker_of_the_lane(self) -> None:
        self._add("a", "")
        other = self._take(broker=OTHER_BROKER)
        equal((self.store.claim(other, 10), self.store.due(other, 10)), ([], []), ALL_SLOTS)
        (there,) = self._add("a", broker=OTHER_BROKER)
        equal(seqs(self.store.claim(other, 10)), [there], ALL_SLOTS)

    def test_looking_writes_nothing(self) -> None:
        held = self._take()
        (late,) = self._add("late")
        held = self.store.settle(held, {late: failed(PAST)}, LEASE)
        self._add("a", "")
        before = self._everything()
        self.store.claim(held, 10)
        self.store.due(held, 10)
        self.store.busy_lanes(BROKER, 8)
        holds(self._everything() == before, READ_ONLY, "rows have changed")

    def test_a_key_has_one_slot_and_no_key_has_many(self) -> None:
        self._add(*["k"] * 30, *[""] * 30)
        rows = self._messages()
        equal(len(set(rows.filter(key="k").values_list("slot", flat=True))), 1, ALL_SLOTS)
        many = set(rows.filter(key="").values_list("slot", flat=True))
        holds(len(many) > 5, ALL_SLOTS, many)  # noqa: PLR2004 - of 30 keyless ones
        holds(all(slot_of(row.to_message()) == row.slot for row in rows), ALL_SLOTS)

    def test_due_in_the_order_of_their_time(self) -> None:
        added = self._add("", "", "", "")
        self.store.settle(self._take(), dict.fromkeys(added, failed()), LEASE)
        for minutes, seq in zip((5, 20, 10, -5), added, strict=True):
            self._todo().filter(seq=seq).update(due_at=Now() - timedelta(minutes=minutes))
        expire_leases(self.using)
        held = self._take()
        equal(seqs(self.store.due(held, 10)), [added[1], added[2], added[0]], DUE)
        equal(seqs(self.store.due(held, 2)), [added[1], added[2]], DUE)

    def test_due_by_the_clock_of_the_database(self) -> None:
        soon, late, dead = self._add("", "", "")
        outcomes = {soon: failed(PAST), late: failed(LATER), dead: failed(None)}
        held = self.store.settle(self._take(), outcomes, LEASE)
        equal(seqs(self.store.due(held, 10)), [soon], DUE)
        equal(seqs(self.store.claim(held, 10)), [], DUE)

    def test_due_only_in_the_slots_of_the_lane(self) -> None:
        added = self._add(*(str(n) for n in range(30)))
        self.store.settle(self._take(), dict.fromkeys(added, failed(PAST)), NOW)
        rows = self._messages().in_bulk(added)
        first = self._take(ME, lanes=8)
        mine = [seq for seq in added if rows[seq].slot % 8 == 0]
        equal(seqs(self.store.due(first, 100)), mine, ALL_SLOTS)

    def test_without_messages_no_lane_is_busy(self) -> None:
        equal(self.store.busy_lanes(BROKER, 8), [], BUSY)

    def test_lanes_with_new_ones_and_due_ones_are_busy(self) -> None:
        new, due, late, parked, dead, gone = self._add(*"abcdef")
        outcomes: Outcomes = {
            due: failed(PAST),
            late: failed(LATER),
            parked: Parked(),
            dead: failed(None),
            gone: Done(),
        }
        self.store.settle(self._take(), outcomes, LEASE)
        busy = self._messages().filter(seq__in=[new, due]).values_list("slot", flat=True)
        slots = sorted(set(busy))
        equal(len(slots), 2, ALL_SLOTS)
        equal(self.store.busy_lanes(BROKER, 64), slots, BUSY)
        equal(self.store.busy_lanes(BROKER, 3), sorted({slot % 3 for slot in slots}), BUSY)
        equal(self.store.busy_lanes(OTHER_BROKER, 64), [], BUSY)

    def test_every_slot_is_looked_at(self) -> None:
        self._add(*(str(n) for n in range(600)))
        equal(self.store.busy_lanes(BROKER, 64), list(range(64)), BUSY)

    @contextlib.contextmanager
    def _undone(self) -> Iterator[None]:
        with contextlib.suppress(_Undo), transaction.atomic(using=self.using):
            yield
            raise _Undo
