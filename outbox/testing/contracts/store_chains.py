"""The contract of a store: whoever comes after a failed message of its key waits for it."""

from __future__ import annotations

from django.db.models.functions import Now

from outbox.models import TodoState
from outbox.runtime.proving import equal, holds
from outbox.store import Done, Failed, Outcomes, Parked
from outbox.testing.contracts.store_bench import (
    DUE,
    HELD,
    LATER,
    LEASE,
    NOTED,
    OTHER_BROKER,
    PAST,
    RELEASED,
    SETTLED,
    StoreBench,
    failed,
    held_flags,
    make_due,
    seqs,
)

_NEW, _RETRY = TodoState.NEW, TodoState.RETRY
_PARKED, _DEAD = TodoState.PARKED, TodoState.DEAD


class ChainTests(StoreBench):
    """Failures and the keys that wait behind them."""

    def test_head_fails_followers_wait_head_succeeds_followers_go_in_order(self) -> None:
        store, held = self.store, self._take()
        head, second, other = self._add("k", "k", "x")
        held = store.settle(held, {head: failed(), second: Parked(), other: Done()}, LEASE)
        (third,) = self._add("k")
        equal(held_flags(store.claim(held, 10)), [(third, True)], HELD)
        held = store.settle(held, {third: Parked()}, LEASE)
        equal((store.claim(held, 10), store.due(held, 10)), ([], []), HELD)
        make_due(self.using)
        page = store.due(held, 10)
        equal([(each.seq, each.attempts, each.held) for each in page], [(head, 1, False)], DUE)
        held = store.settle(held, {head: Done()}, LEASE)
        equal(held_flags(store.claim(held, 10)), [(second, False), (third, False)], RELEASED)
        store.settle(held, {second: Done(), third: Done()}, LEASE)
        equal(self._states(), {}, SETTLED)

    def test_the_head_fails_again(self) -> None:
        held = self._take()
        head, second = self._add("k", "k")
        held = self.store.settle(held, {head: failed(), second: Parked()}, LEASE)
        make_due(self.using)
        held = self.store.settle(held, {head: failed()}, LEASE)
        equal(self._states(), {head: _RETRY, second: _PARKED}, HELD)
        equal(self._todo().get(seq=head).attempts, 2, NOTED)
        equal(self.store.due(held, 10), [], DUE)

    def test_parked_behind_a_head_that_succeeds_in_the_same_page(self) -> None:
        held = self._take()
        head, second = self._add("k", "k")
        held = self.store.settle(held, {head: failed(PAST)}, LEASE)
        equal(held_flags(self.store.claim(held, 10)), [(second, True)], HELD)
        held = self.store.settle(held, {head: Done(), second: Parked()}, LEASE)
        equal(seqs(self.store.claim(held, 10)), [second], RELEASED)

    def test_the_failure_comes_after_one_that_succeeded(self) -> None:
        first, head, second = self._add("k", "k", "k")
        outcomes: Outcomes = {first: Done(), head: failed(), second: Parked()}
        self.store.settle(self._take(), outcomes, LEASE)
        equal(self._states(), {head: _RETRY, second: _PARKED}, HELD)

    def test_a_dead_head_keeps_its_key_and_no_other(self) -> None:
        held = self._take()
        head, second, other = self._add("k", "k", "x")
        held = self.store.settle(held, {head: failed(None), second: Parked()}, LEASE)
        (third,) = self._add("k")
        make_due(self.using)
        equal(self.store.due(held, 10), [], HELD)
        equal(held_flags(self.store.claim(held, 10)), [(other, False), (third, True)], HELD)
        self.store.settle(held, {other: Done(), third: Parked()}, LEASE)
        equal(self._states(), {head: _DEAD, second: _PARKED, third: _PARKED}, HELD)

    def test_without_a_key_nobody_waits(self) -> None:
        held = self._take()
        one, two = self._add("", "")
        held = self.store.settle(held, {one: failed(PAST)}, LEASE)
        equal(held_flags(self.store.claim(held, 10)), [(two, False)], HELD)
        # A keyless one that succeeds releases nobody: "" is no key.
        (three,) = self._add("")
        held = self.store.settle(held, {three: Parked()}, LEASE)
        self.store.settle(held, {one: Done()}, LEASE)
        equal(self._states(), {two: _NEW, three: _PARKED}, HELD)

    def test_a_key_of_another_broker_is_another_key(self) -> None:
        held = self._take()
        head, second = self._add("k", "k")
        held = self.store.settle(held, {head: failed()}, LEASE)
        self._todo().filter(seq=head).update(broker=OTHER_BROKER)
        equal(held_flags(self.store.claim(held, 10)), [(second, False)], HELD)

    def test_many_failures_at_once(self) -> None:
        added = self._add(*[""] * 120)
        outcomes = {seq: Failed(f"E{seq}", f"no {seq}", LATER * seq) for seq in added}
        self.store.settle(self._take(), outcomes, LEASE)
        for row in self._todo():
            equal((row.error_class, row.error), (f"E{row.seq}", f"no {row.seq}"), NOTED)
            equal((row.attempts, row.state), (1, _RETRY), NOTED)
        # To a minute: this test may have been slow.
        near = self._todo().filter(
            seq=added[7],
            due_at__gt=Now() + LATER * added[7] - LATER / 60,
            due_at__lte=Now() + LATER * added[7],
        )
        holds(near.exists(), DUE, "the delay is not counted from now, by the database's clock")

    def test_whatever_a_broker_says_can_be_kept(self) -> None:
        added = self._add("", "", "")
        texts = ["x" * 5000, "a\x00b", "a\ud800b"]
        outcomes = {
            seq: Failed("E" * 200, text, None) for seq, text in zip(added, texts, strict=True)
        }
        self.store.settle(self._take(), outcomes, LEASE)
        kept = list(self._todo().order_by("seq").values_list("error", "error_class", "state"))
        equal([state for _, _, state in kept], [_DEAD] * 3, NOTED)
        for (error, kind, _), text in zip(kept, texts, strict=True):
            begins = error[0] == text[0] and set(kind) == {"E"}
            holds(error and begins, NOTED, (error, kind))
