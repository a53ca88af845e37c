"""The contract of a store, on every vendor; what each bug of it would break is a guarantee."""

import threading
import uuid
from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.db.models.functions import Now

from outbox import Draft, publish_many
from outbox.conf import SLOTS
from outbox.exceptions import LeaseLost
from outbox.models import OutboxLane, OutboxMessage, OutboxTodo, TodoState
from outbox.store import Done, Failed, Parked, lanes, stats, stores
from outbox.store.base import slot_of
from tests.outbox_support import LONG_AGO, VENDORS, expire_leases, finish, make_due, start

DATABASES = ["default", "sqlite"]
pytestmark = pytest.mark.django_db(databases=DATABASES)
real_commits = pytest.mark.django_db(transaction=True, databases=DATABASES)

LEASE = timedelta(seconds=30)
NOW = timedelta(0)
LATER = timedelta(hours=1)
PAST = -timedelta(seconds=1)
ME, OTHER = uuid.uuid4(), uuid.uuid4()


@pytest.fixture(params=VENDORS)
def using(request):
    return request.param


@pytest.fixture
def store(using):
    return stores[using]


@pytest.fixture
def add(using):
    """Publish messages with these keys; their positions."""

    def publish(*keys, topic="t"):
        with transaction.atomic(using=using):
            sent = publish_many([Draft(topic, None, key=key) for key in keys], using=using)
        rows = OutboxMessage.objects.using(using).filter(id__in=[m.id for m in sent])
        return list(rows.order_by("seq").values_list("seq", flat=True))

    return publish


@pytest.fixture
def held(store):
    return store.acquire("default", 0, 1, ME, LEASE)


@pytest.fixture
def states(using):
    def read():
        rows = OutboxTodo.objects.using(using).order_by("seq")
        return {seq: TodoState(state) for seq, state in rows.values_list("seq", "state")}

    return read


def everything(using):
    return [
        list(model.objects.using(using).order_by("pk").values())
        for model in (OutboxTodo, OutboxLane, OutboxMessage)
    ]


def failed(delay=LATER):
    return Failed("nacked", "no", delay)


def seqs(page):
    return [entry.seq for entry in page]


class TestLease:
    def test_one_relay_at_a_time(self, store, held):
        assert (held.epoch, held.owner, held.slots) == (1, ME, tuple(range(SLOTS)))
        assert store.acquire("default", 0, 1, OTHER, LEASE) is None
        assert store.acquire("default", 0, 1, ME, LEASE) is None

    def test_lanes_and_brokers_are_apart(self, store, held):
        assert store.acquire("default", 1, 2, OTHER, LEASE)
        assert store.acquire("stream", 0, 1, OTHER, LEASE)

    @pytest.mark.parametrize("lanes", [1, 3, 8, 64])
    def test_the_lanes_share_all_slots(self, store, lanes):
        held = [store.acquire("default", lane, lanes, ME, LEASE) for lane in range(lanes)]
        assert sorted(slot for lease in held for slot in lease.slots) == list(range(SLOTS))

    def test_ends_by_the_clock_of_the_database(self, store, using, held):
        expire_leases(using)
        taken = store.acquire("default", 0, 1, OTHER, LEASE)
        assert (taken.epoch, taken.owner) == (2, OTHER)
        assert store.acquire("default", 0, 1, ME, LEASE) is None

    def test_its_length_is_counted_from_now(self, store, using, held):
        left = OutboxLane.objects.using(using).filter(
            seq=held.seq,
            lease_until__gt=Now() + LEASE - timedelta(seconds=5),
            lease_until__lte=Now() + LEASE,
        )
        assert left.exists()
        assert LEASE.total_seconds() - 5 < held.remaining() <= LEASE.total_seconds()

    def test_its_length_is_counted_from_now_also_in_an_old_transaction(self, store, using):
        """The transaction began long before: a lease from its beginning would have ended (D8)."""
        if connections[using].vendor == "sqlite":
            pytest.skip("SQLite has no transaction clock")
        with transaction.atomic(using=using), connections[using].cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.05)")
            assert store.acquire("default", 0, 1, ME, timedelta(seconds=0.04))
            assert store.acquire("default", 0, 1, OTHER, LEASE) is None

    def test_given_back(self, store, using, held):
        store.give_back(held)
        row = OutboxLane.objects.using(using).get(lane=0, seq=held.seq + 1)
        assert row.lease_until <= row.at
        assert store.acquire("default", 0, 1, OTHER, LEASE).epoch == 2

    def test_renewed(self, store, using, held):
        expire_leases(using)
        held = store.renew(held, LEASE)
        assert held.epoch == 1
        assert store.acquire("default", 0, 1, OTHER, LEASE) is None
        store.give_back(held)

    def test_settling_renews_or_gives_back(self, store, using, held):
        expire_leases(using)
        held = store.settle(held, {}, LEASE)
        assert store.acquire("default", 0, 1, OTHER, LEASE) is None
        store.settle(held, {}, NOW)
        assert store.acquire("default", 0, 1, OTHER, LEASE)

    def test_settling_notes_what_it_did(self, store, using, held, add):
        one, two, three, four = add("", "", "", "")
        store.settle(held, {one: Done(), two: Done(), three: failed(), four: Parked()}, LEASE)
        row = OutboxLane.objects.using(using).order_by("-seq").first()
        assert (row.published, row.failed, row.owner) == (2, 1, ME)


RACE = """
import sys, uuid
from datetime import timedelta
from django.db import connections
from outbox.store import stores
store, owner = stores[{using!r}], uuid.uuid4()
store.busy_lanes("default", 64)
print("ready", flush=True)
sys.stdin.readline()
got = [n for n in range(64) if store.acquire("default", n, 64, owner, timedelta(minutes=5))]
print(*got)
"""


@real_commits
class TestRaces:
    def test_two_processes(self, using):
        processes = [start(RACE.format(using=using)) for _ in range(2)]
        for process in processes:
            assert process.stdout.readline() == "ready\n", process.communicate()
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        got = [[int(lane) for lane in finish(process).split()] for process in processes]
        assert sorted(got[0] + got[1]) == list(range(64))

    def test_two_threads(self, using):
        got, together = [[], []], threading.Barrier(2)

        def race(number):
            owner = uuid.uuid4()
            for lane in range(32):
                together.wait()
                if stores[using].acquire("default", lane, 64, owner, LEASE):
                    got[number].append(lane)
            connections[using].close()

        threads = [threading.Thread(target=race, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got[0] + got[1]) == list(range(32))

    def test_a_settle_that_is_under_way_holds_up_the_next_relay(self, using, store, add):
        """The lease ran out while a settle was being written: one of the two wins, never both."""
        (one,) = add("")
        held = store.acquire("default", 0, 1, ME, LEASE)
        expire_leases(using)
        taken = []

        def take():
            taken.append(stores[using].acquire("default", 0, 1, OTHER, LEASE))
            connections[using].close()

        thread = threading.Thread(target=take)
        with transaction.atomic(using=using):
            store.settle(held, {one: Done()}, LEASE)
            thread.start()
            thread.join(0.3)
        thread.join()
        assert taken == [None]
        assert not OutboxTodo.objects.using(using).exists()


def zombie(store, using, held):
    """The lane passes to another relay, which does not hear of it."""
    expire_leases(using)
    return store.acquire("default", 0, 1, OTHER, LEASE)


VERBS = {
    "done": lambda store, held, seq: store.settle(held, {seq: Done()}, LEASE),
    "failed": lambda store, held, seq: store.settle(held, {seq: failed()}, LEASE),
    "dead": lambda store, held, seq: store.settle(held, {seq: failed(None)}, LEASE),
    "parked": lambda store, held, seq: store.settle(held, {seq: Parked()}, LEASE),
    "nothing": lambda store, held, seq: store.settle(held, {}, LEASE),
    "renew": lambda store, held, seq: store.renew(held, LEASE),
    "give back": lambda store, held, seq: store.give_back(held),
}


class TestFence:
    """G6: a relay whose lease has passed to another changes nothing."""

    @pytest.mark.parametrize("verb", VERBS)
    def test_a_zombie_changes_nothing(self, store, using, held, add, verb):
        (seq,) = add("k")
        zombie(store, using, held)
        before = everything(using)
        with pytest.raises(LeaseLost, match="Lane 0 of broker 'default' has passed to another"):
            VERBS[verb](store, held, seq)
        assert everything(using) == before

    @pytest.mark.parametrize("verb", VERBS)
    def test_nor_after_the_other_has_given_the_lane_back(self, store, using, held, add, verb):
        (seq,) = add("k")
        store.give_back(zombie(store, using, held))
        before = everything(using)
        with pytest.raises(LeaseLost):
            VERBS[verb](store, held, seq)
        assert everything(using) == before

    def test_a_lease_is_good_for_one_settle(self, store, held, add):
        (seq,) = add("")
        store.settle(held, {}, LEASE)
        with pytest.raises(LeaseLost):
            store.settle(held, {seq: Done()}, LEASE)

    def test_an_expired_lease_that_nobody_took_still_counts(self, store, using, held, add):
        (seq,) = add("")
        expire_leases(using)
        store.settle(held, {seq: Done()}, LEASE)
        assert not OutboxTodo.objects.using(using).exists()

    def test_pruning_the_log_does_not_unfence_a_zombie(self, store, using, held, add, monkeypatch):
        monkeypatch.setattr(lanes, "LOG_KEPT", 10)
        monkeypatch.setattr(lanes, "_PRUNE_EVERY", 7)
        (seq,) = add("")
        store.give_back(zombie(store, using, held))
        for _ in range(30):
            store.give_back(store.acquire("default", 0, 1, OTHER, LEASE))
        log = OutboxLane.objects.using(using)
        assert log.count() < 10 + 2 * 7 + 2
        assert not log.filter(seq=held.seq).exists()
        before = everything(using)
        with pytest.raises(LeaseLost):
            store.settle(held, {seq: Done()}, LEASE)
        assert everything(using) == before

    def test_the_log_is_pruned_whatever_a_visit_writes(self, store, using, monkeypatch):
        """An acquire and a give back are two rows each time: no fixed position is ever met."""
        monkeypatch.setattr(lanes, "LOG_KEPT", 4)
        monkeypatch.setattr(lanes, "_PRUNE_EVERY", 10)
        sizes = set()
        for _ in range(60):
            store.give_back(store.acquire("default", 0, 1, ME, LEASE))
            sizes.add(OutboxLane.objects.using(using).count())
        assert max(sizes) < 30

    def test_a_restored_database_does_not_unfence_a_zombie(self, store, using, held, add):
        """Positions that the log had before the backup was taken are given a second time."""
        (seq,) = add("")
        moved = store.renew(held, LEASE)
        OutboxLane.objects.using(using).filter(seq__gte=held.seq).delete()
        again = store.acquire("default", 0, 1, OTHER, LEASE)
        again = store.renew(again, LEASE)
        assert again.seq == moved.seq
        with pytest.raises(LeaseLost):
            store.settle(moved, {seq: Done()}, LEASE)
        store.settle(again, {seq: Done()}, LEASE)


class TestClaim:
    def test_in_order_page_by_page(self, store, held, add):
        added = add(*(str(n) for n in range(25)))
        page = store.claim(held, 10)
        assert seqs(page) == added[:10]
        assert seqs(store.claim(held, 10)) == added[:10]
        assert [(entry.attempts, entry.held) for entry in page] == [(0, False)] * 10
        held = store.settle(held, dict.fromkeys(added[:10], Done()), LEASE)
        assert seqs(store.claim(held, 10)) == added[10:20]
        held = store.settle(held, {added[10]: Done(), added[12]: Done()}, LEASE)
        assert seqs(store.claim(held, 5)) == [added[11], *added[13:17]]

    def test_the_message_as_it_was_published(self, store, using, held):
        with transaction.atomic(using=using):
            sent = publish_many([Draft("a", {"é": 1}, key="k", headers={"h": "1"})], using=using)
        assert [entry.message for entry in store.claim(held, 10)] == sent

    def test_in_order_also_where_rows_have_moved(self, store, held, add):
        """A row that was written again lies behind those that were written later."""
        added = add(*["k"] * 12)
        outcomes = dict.fromkeys(added[1:6], Parked())
        held = store.settle(held, {added[0]: failed(PAST), **outcomes}, LEASE)
        held = store.settle(held, {added[0]: Done()}, LEASE)
        assert seqs(store.claim(held, 3)) == added[1:4]

    def test_only_the_slots_of_the_lane(self, store, using, add):
        added = add(*(str(n) for n in range(60)))
        rows = OutboxMessage.objects.using(using).in_bulk(added)
        found = []
        for lane in range(8):
            page = store.claim(store.acquire("default", lane, 8, ME, LEASE), 100)
            assert all(rows[entry.seq].slot % 8 == lane for entry in page)
            assert seqs(page) == sorted(seqs(page))
            found += seqs(page)
        assert sorted(found) == added

    def test_only_the_broker_of_the_lane(self, store, add):
        add("a", "")
        other = store.acquire("stream", 0, 1, ME, LEASE)
        assert store.claim(other, 10) == []
        assert store.due(other, 10) == []

    def test_writes_nothing(self, store, using, held, add):
        add("a", "")
        before = everything(using)
        store.claim(held, 10)
        store.due(held, 10)
        store.busy_lanes("default", 8)
        assert everything(using) == before

    def test_a_key_has_one_slot_and_no_key_has_many(self, add, using):
        add(*["k"] * 30, *[""] * 30)
        rows = OutboxMessage.objects.using(using)
        assert len(set(rows.filter(key="k").values_list("slot", flat=True))) == 1
        assert len(set(rows.filter(key="").values_list("slot", flat=True))) > 5
        assert all(slot_of(row.to_message()) == row.slot for row in rows)


class TestChain:
    """G7: whoever comes after a failed message of its key waits for it."""

    def test_head_fails_followers_wait_head_succeeds_followers_go_in_order(
        self, store, using, held, add, states
    ):
        head, second, other = add("k", "k", "x")
        held = store.settle(held, {head: failed(), second: Parked(), other: Done()}, LEASE)
        (third,) = add("k")
        page = store.claim(held, 10)
        assert [(entry.seq, entry.held) for entry in page] == [(third, True)]
        held = store.settle(held, {third: Parked()}, LEASE)
        assert store.claim(held, 10) == []
        assert store.due(held, 10) == []
        make_due(using)
        (entry,) = store.due(held, 10)
        assert (entry.seq, entry.attempts, entry.held) == (head, 1, False)
        held = store.settle(held, {head: Done()}, LEASE)
        page = store.claim(held, 10)
        assert [(entry.seq, entry.held) for entry in page] == [(second, False), (third, False)]
        store.settle(held, {second: Done(), third: Done()}, LEASE)
        assert states() == {}

    def test_the_head_fails_again(self, store, using, held, add, states):
        head, second = add("k", "k")
        held = store.settle(held, {head: failed(), second: Parked()}, LEASE)
        make_due(using)
        held = store.settle(held, {head: failed()}, LEASE)
        assert states() == {head: TodoState.RETRY, second: TodoState.PARKED}
        assert OutboxTodo.objects.using(using).get(seq=head).attempts == 2
        assert store.due(held, 10) == []

    def test_parked_behind_a_head_that_succeeds_in_the_same_page(self, store, using, held, add):
        head, second = add("k", "k")
        held = store.settle(held, {head: failed(PAST)}, LEASE)
        assert [entry.held for entry in store.claim(held, 10)] == [True]
        held = store.settle(held, {head: Done(), second: Parked()}, LEASE)
        assert seqs(store.claim(held, 10)) == [second]

    def test_the_failure_comes_after_one_that_succeeded(self, store, held, add, states):
        first, head, second = add("k", "k", "k")
        store.settle(held, {first: Done(), head: failed(), second: Parked()}, LEASE)
        assert states() == {head: TodoState.RETRY, second: TodoState.PARKED}

    def test_a_dead_head_keeps_its_key_and_no_other(self, store, using, held, add, states):
        head, second, other = add("k", "k", "x")
        held = store.settle(held, {head: failed(None), second: Parked()}, LEASE)
        (third,) = add("k")
        make_due(using)
        assert store.due(held, 10) == []
        page = store.claim(held, 10)
        assert [(entry.seq, entry.held) for entry in page] == [(other, False), (third, True)]
        store.settle(held, {other: Done(), third: Parked()}, LEASE)
        assert states() == {
            head: TodoState.DEAD,
            second: TodoState.PARKED,
            third: TodoState.PARKED,
        }

    def test_without_a_key_nobody_waits(self, store, using, held, add, states):
        one, two = add("", "")
        held = store.settle(held, {one: failed(PAST)}, LEASE)
        (entry,) = store.claim(held, 10)
        assert (entry.seq, entry.held) == (two, False)
        # A keyless one that succeeds releases nobody: "" is no key.
        (three,) = add("")
        held = store.settle(held, {three: Parked()}, LEASE)
        store.settle(held, {one: Done()}, LEASE)
        assert states() == {two: TodoState.NEW, three: TodoState.PARKED}

    def test_a_key_of_another_broker_is_another_key(self, store, using, held, add, settings):
        head, _second = add("k", "k")
        held = store.settle(held, {head: failed()}, LEASE)
        OutboxTodo.objects.using(using).filter(seq=head).update(broker="stream")
        assert [entry.held for entry in store.claim(held, 10)] == [False]


class TestDue:
    def test_in_the_order_of_their_time(self, store, using, held, add):
        added = add("", "", "", "")
        store.settle(held, dict.fromkeys(added, failed()), LEASE)
        todo = OutboxTodo.objects.using(using)
        for minutes, seq in zip((5, 20, 10, -5), added, strict=True):
            todo.filter(seq=seq).update(due_at=Now() - timedelta(minutes=minutes))
        expire_leases(using)
        held = store.acquire("default", 0, 1, ME, LEASE)
        assert seqs(store.due(held, 10)) == [added[1], added[2], added[0]]
        assert seqs(store.due(held, 2)) == [added[1], added[2]]

    @pytest.mark.parametrize(("delay", "due"), [(PAST, True), (LATER, False)])
    def test_by_the_clock_of_the_database(self, store, held, add, delay, due):
        (seq,) = add("")
        held = store.settle(held, {seq: failed(delay)}, LEASE)
        assert seqs(store.due(held, 10)) == ([seq] if due else [])

    def test_only_the_slots_of_the_lane(self, store, using, add, held):
        added = add(*(str(n) for n in range(30)))
        store.settle(held, dict.fromkeys(added, failed(PAST)), NOW)
        rows = OutboxMessage.objects.using(using).in_bulk(added)
        first = store.acquire("default", 0, 8, ME, LEASE)
        assert seqs(store.due(first, 100)) == [s for s in added if rows[s].slot % 8 == 0]


class TestErrors:
    def test_a_settle_that_fails_half_way_changes_nothing(
        self, store, using, held, add, monkeypatch
    ):
        def fail(*_):
            raise ZeroDivisionError

        one, two, three = add("", "", "k")
        before = everything(using)
        monkeypatch.setattr(store, "_remove", fail)
        with pytest.raises(ZeroDivisionError):
            store.settle(held, {one: failed(), two: Done(), three: Parked()}, LEASE)
        assert everything(using) == before

    def test_many_at_once(self, store, using, held, add):
        added = add(*[""] * 120)
        outcomes = {seq: Failed(f"E{seq}", f"no {seq}", LATER * seq) for seq in added}
        store.settle(held, outcomes, LEASE)
        for row in OutboxTodo.objects.using(using):
            assert (row.error_class, row.error) == (f"E{row.seq}", f"no {row.seq}")
            assert (row.attempts, row.state) == (1, TodoState.RETRY)
        near = OutboxTodo.objects.using(using).filter(
            seq=added[7],
            due_at__gt=Now() + LATER * added[7] - timedelta(minutes=1),
            due_at__lte=Now() + LATER * added[7],
        )
        assert near.exists()

    def test_whatever_a_broker_says_can_be_stored(self, store, using, held, add):
        added = add("", "", "")
        texts = ["x" * 5000, "a\x00b", "a\ud800b"]
        outcomes = {
            seq: Failed("E" * 200, text, None) for seq, text in zip(added, texts, strict=True)
        }
        store.settle(held, outcomes, LEASE)
        rows = OutboxTodo.objects.using(using).order_by("seq")
        assert [row.error for row in rows] == ["x" * 2000, r"a\x00b", r"a\ud800b"]
        assert {row.error_class for row in rows} == {"E" * 100}


class TestBusyLanes:
    def test_nothing(self, store):
        assert store.busy_lanes("default", 8) == []

    def test_new_ones_and_due_ones(self, store, using, held, add):
        new, due, late, parked, dead, gone = add(*"abcdef")
        outcomes = {
            due: failed(PAST),
            late: failed(LATER),
            parked: Parked(),
            dead: failed(None),
            gone: Done(),
        }
        store.settle(held, outcomes, LEASE)
        slots = OutboxTodo.objects.using(using).in_bulk([new, due], field_name="seq")
        expected = sorted({row.slot for row in slots.values()})
        assert len(expected) == 2
        assert store.busy_lanes("default", 64) == expected
        assert store.busy_lanes("default", 3) == sorted({slot % 3 for slot in expected})
        assert store.busy_lanes("stream", 64) == []

    def test_every_slot_is_looked_at(self, store, add):
        add(*(str(n) for n in range(600)))
        assert store.busy_lanes("default", 64) == list(range(64))


class TestStats:
    def test_nothing(self, using):
        none = {"pending": 0, "retrying": 0, "parked": 0, "dead": 0, "oldest": None}
        assert stats.totals(using) == none
        for by in ("state", "broker", "topic", "error"):
            assert list(stats.groups(using, by)) == []

    def test_totals_and_groups(self, store, using, held, add):
        one, two, three = add("a", "b", "c", topic="orders.placed")
        four, five = add("d", "e", topic="mail.sent")
        outcomes = {two: failed(LATER), three: failed(None), four: Parked(), five: Done()}
        store.settle(held, outcomes, LEASE)
        OutboxTodo.objects.using(using).filter(seq=one).update(due_at=Now() - LONG_AGO)
        total = stats.totals(using)
        assert 3600 <= total.pop("oldest") < 3700
        assert total == {"pending": 1, "retrying": 1, "parked": 1, "dead": 1}

        def counts(by):
            return {
                group["name"]: tuple(
                    group[name] for name in ("pending", "retrying", "parked", "dead")
                )
                for group in stats.groups(using, by)
            }

        assert counts("topic") == {"mail.sent": (0, 0, 1, 0), "orders.placed": (1, 1, 0, 1)}
        assert counts("broker") == {"default": (1, 1, 1, 1)}
        assert counts("error") == {"": (1, 0, 1, 0), "nacked": (0, 1, 0, 1)}
        assert counts("state") == {
            "pending": (1, 0, 0, 0),
            "retrying": (0, 1, 0, 0),
            "parked": (0, 0, 1, 0),
            "dead": (0, 0, 0, 1),
        }

    def test_what_waits_for_its_time_is_not_the_oldest(self, store, using, held, add):
        (one,) = add("")
        store.settle(held, {one: failed(LATER)}, LEASE)
        assert stats.totals(using)["oldest"] is None
