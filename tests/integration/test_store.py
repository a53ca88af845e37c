"""What our stores do beyond their contract (tests/contract/test_stores.py), and the counts."""

import uuid
from datetime import timedelta

import pytest
from django.db import transaction
from django.db.models.functions import Now

from outbox import Draft, publish_many
from outbox.exceptions import LeaseLost
from outbox.models import OutboxLane, OutboxMessage, OutboxTodo, TodoState
from outbox.store import Done, Failed, Parked, lanes, stats, stores
from tests.outbox_support import LONG_AGO, VENDORS, expire_leases, finish, start

DATABASES = ["default", "sqlite"]
pytestmark = pytest.mark.django_db(databases=DATABASES)
real_commits = pytest.mark.django_db(transaction=True, databases=DATABASES)

LEASE = timedelta(seconds=30)
LATER = timedelta(hours=1)
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


def everything(using):
    return [
        list(model.objects.using(using).order_by("pk").values())
        for model in (OutboxTodo, OutboxLane, OutboxMessage)
    ]


def failed(delay=LATER):
    return Failed("nacked", "no", delay)


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


def zombie(store, using, held):
    """The lane passes to another relay, which does not hear of it."""
    expire_leases(using)
    return store.acquire("default", 0, 1, OTHER, LEASE)


class TestLog:
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

    def test_a_chain_that_an_earlier_release_has_parked_is_released(self, store, using, held, add):
        head, second = add("k", "k")
        todo = OutboxTodo.objects.using(using)
        todo.filter(seq=head).update(state=TodoState.RETRY, attempts=1)
        todo.filter(seq=second).update(state=TodoState.PARKED)
        store.settle(held, {head: Done()}, LEASE)
        assert todo.get().state == TodoState.NEW

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
