"""A person's retry, also while a relay is at the same message."""

import threading
import uuid
from datetime import timedelta

import pytest
from django.db import connections, transaction
from django.db.models.functions import Now

from outbox import Draft, history, operations, publish_many
from outbox.brokers.base import Status
from outbox.models import OutboxEvent, OutboxMessage, OutboxTodo, TodoState
from outbox.relay import Relay
from outbox.store import Done, Failed, Parked, stores
from tests.outbox_support import VENDORS, ScriptedPublisher, expire_leases, make_due

DATABASES = ["default", "sqlite"]
pytestmark = pytest.mark.django_db(databases=DATABASES)
real_commits = pytest.mark.django_db(transaction=True, databases=DATABASES)

LEASE = timedelta(seconds=30)
LATER = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _quick(settings):
    settings.OUTBOX = settings.OUTBOX | {
        "LANES": 1,
        "MAX_ATTEMPTS": 2,
        "BACKOFF": {"BASE": LATER, "MAX": LATER},
    }


@pytest.fixture(params=VENDORS)
def using(request):
    return request.param


@pytest.fixture
def send(using):
    """Publish messages with these keys; (id, position) of each."""

    def publish(*keys):
        with transaction.atomic(using=using):
            sent = publish_many([Draft("t", n, key=key) for n, key in enumerate(keys)], using=using)
        rows = OutboxMessage.objects.using(using).filter(id__in=[m.id for m in sent])
        return list(rows.order_by("seq").values_list("id", "seq"))

    return publish


@pytest.fixture
def drain(using):
    """Let a relay run until nothing is due; what it handed over."""

    def run(answer=Status.ACKED):
        publisher = ScriptedPublisher(lambda _: answer)
        Relay("default", using, publisher).drain()
        return [message.id for message in publisher.submitted]

    return run


def retry(using, *positions, **more):
    return operations.retry(using, positions, actor="alice", **more)


def row(using, seq):
    return OutboxTodo.objects.using(using).get(seq=seq)


def die(using, drain):
    """Every message that is due runs out of attempts."""
    drain(Status.NACKED)
    make_due(using)
    drain(Status.NACKED)


class TestDead:
    def test_goes_out_and_its_key_follows_in_order(self, using, send, drain):
        sent = send("k", "k", "k")
        die(using, drain)
        (later,) = send("k")
        assert drain() == []
        outcome = retry(using, sent[0][1], reason="fixed")
        assert outcome.changed == [sent[0][0]]
        assert outcome.brokers == {"default"}
        assert drain() == [id_ for id_, _ in [*sent, later]]
        assert not OutboxTodo.objects.using(using).exists()

    def test_has_one_more_round_of_attempts(self, using, send, drain):
        ((id_, seq),) = send("")
        die(using, drain)
        retry(using, seq)
        drain(Status.NACKED)
        assert (row(using, seq).state, row(using, seq).attempts) == (TodoState.RETRY, 3)
        make_due(using)
        drain(Status.NACKED)
        assert (row(using, seq).state, row(using, seq).attempts) == (TodoState.DEAD, 4)
        assert [event.name for event in history(id_, using).events] == [
            "created", "failed", "dead", "retried", "failed", "dead",
        ]  # fmt: skip

    def test_counts_from_nothing_when_asked_to(self, using, send, drain):
        ((_, seq),) = send("")
        die(using, drain)
        retry(using, seq)
        retry(using, seq, reset_attempts=True)
        assert (row(using, seq).attempts, row(using, seq).forgiven) == (0, 0)
        drain(Status.NACKED)
        assert (row(using, seq).state, row(using, seq).attempts) == (TodoState.RETRY, 1)

    def test_the_backoff_begins_again(self, using, send, drain, settings):
        settings.OUTBOX = settings.OUTBOX | {
            "MAX_ATTEMPTS": 6,
            "BACKOFF": {"BASE": timedelta(seconds=1), "FACTOR": 100, "MAX": timedelta(days=300)},
        }
        ((_, seq),) = send("")
        for _ in range(6):
            drain(Status.NACKED)
            OutboxTodo.objects.using(using).filter(seq=seq, state=1).update(due_at=Now())
        retry(using, seq)
        drain(Status.NACKED)
        soon = OutboxTodo.objects.using(using).filter(due_at__lte=Now() + timedelta(minutes=5))
        assert soon.get().state == TodoState.RETRY


class TestRetrying:
    def test_is_due_now_and_gets_no_attempts(self, using, send, drain):
        ((id_, seq),) = send("")
        drain(Status.NACKED)
        assert drain() == []
        retry(using, seq)
        assert (row(using, seq).attempts, row(using, seq).forgiven) == (1, 0)
        assert drain() == [id_]

    def test_or_after_a_while(self, using, send, drain):
        ((id_, seq),) = send("")
        drain(Status.NACKED)
        retry(using, seq, delay=timedelta(minutes=5))
        assert drain() == []
        due = OutboxTodo.objects.using(using).filter(
            due_at__gt=Now() + timedelta(minutes=4), due_at__lte=Now() + timedelta(minutes=5)
        )
        assert due.exists()
        assert "due in 0:05:00" in history(id_, using).events[-1].detail


class TestSkipped:
    def test_whatever_needs_no_retry_is_left_alone_and_named(self, using, send):
        dead, parked, new, gone = send("k", "k", "", "")
        held = stores[using].acquire("default", 0, 1, uuid.uuid4(), LEASE)
        outcomes = {dead[1]: Failed("E", "no", None), parked[1]: Parked(), gone[1]: Done()}
        stores[using].settle(held, outcomes, LEASE)
        positions = [seq for _, seq in (dead, parked, new, gone)]
        outcome = retry(using, *positions, 10**9)
        assert outcome.changed == [dead[0]]
        assert dict(outcome.skipped) == {
            parked[0]: "waits behind an earlier message of its key",
            new[0]: "not handed over yet",
            gone[0]: "already published",
        }
        assert (row(using, parked[1]).state, row(using, new[1]).state) == (2, 0)
        assert [e.seq for e in OutboxEvent.objects.using(using).filter(name="retried")] == [dead[1]]


class TestTrace:
    def test_who_and_why_stand_in_the_timeline(self, using, send, drain):
        ((id_, seq),) = send("")
        die(using, drain)
        retry(using, seq, reason="JIRA-12 \x00")
        event = OutboxEvent.objects.using(using).get(name="retried")
        assert (event.actor, event.reason) == ("alice", "JIRA-12 \\x00")
        assert history(id_, using).events[-1].detail == (
            "by alice: was dead after 2 attempts: JIRA-12 \\x00"
        )

    def test_no_change_without_its_event(self, using, send, drain, monkeypatch):
        """G17: they are of one transaction."""

        def fail(*_):
            raise ZeroDivisionError

        ((_, seq),) = send("")
        die(using, drain)
        monkeypatch.setattr("outbox.store.retrying.note", fail)
        with pytest.raises(ZeroDivisionError):
            retry(using, seq)
        assert row(using, seq).state == TodoState.DEAD

    @real_commits
    def test_the_relay_is_nudged_after_the_commit(self, using, send, drain, monkeypatch, settings):
        sent = []
        monkeypatch.setattr("outbox.wakeups._send", lambda *args: sent.append(args))
        ((_, seq),) = send("")
        die(using, drain)
        settings.OUTBOX = settings.OUTBOX | {"WAKEUP": "celery"}
        with transaction.atomic(using=using):
            retry(using, seq)
            assert sent == []
        assert sent == [("default", using)]


class TestWhileARelayIsAtIt:
    """G6 and its other side: neither a relay's word nor a person's is lost."""

    @pytest.fixture
    def claimed(self, using, send, drain):
        """A message in flight; its position, and a way for the relay to settle it."""
        ((id_, seq),) = send("k")
        drain(Status.NACKED)
        make_due(using)
        expire_leases(using)
        held = stores[using].acquire("default", 0, 1, uuid.uuid4(), LEASE)
        (entry,) = stores[using].due(held, 10)
        judge = Relay("default", using, ScriptedPublisher())._judge

        def settle(done):
            outcome = Done() if done else judge(entry, "nacked", "no")
            stores[using].settle(held, {seq: outcome}, LEASE)

        return id_, seq, settle

    def test_retried_and_then_published(self, using, claimed):
        id_, seq, settle = claimed
        retry(using, seq)
        settle(True)
        found = history(id_, using)
        assert found.state == "published"
        assert [event.name for event in found.events][-2:] == ["retried", "published"]

    def test_retried_with_a_new_count_and_then_failed(self, using, claimed):
        """Judged by what was claimed it would be dead: by what a person decided it is not."""
        _, seq, settle = claimed
        retry(using, seq, reset_attempts=True, delay=timedelta(minutes=5))
        settle(False)
        found = row(using, seq)
        assert (found.state, found.attempts, found.error_class) == (TodoState.RETRY, 1, "nacked")
        due = OutboxTodo.objects.using(using).filter(
            due_at__gt=Now() + timedelta(minutes=4), due_at__lte=Now() + timedelta(minutes=5)
        )
        assert due.exists()
        names = OutboxEvent.objects.using(using).order_by("id").values_list("name", flat=True)
        assert list(names)[-2:] == ["retried", "failed"]

    def test_control_without_the_revision_the_person_s_word_is_lost(
        self, using, claimed, monkeypatch
    ):
        _, seq, settle = claimed
        make = Failed.__init__
        monkeypatch.setattr(Failed, "__init__", lambda self, *args: make(self, *args[:3]))
        retry(using, seq, reset_attempts=True, delay=timedelta(minutes=5))
        settle(False)
        assert row(using, seq).state == TodoState.DEAD

    def test_failed_and_then_retried(self, using, claimed):
        _, seq, settle = claimed
        settle(False)
        assert row(using, seq).state == TodoState.DEAD
        retry(using, seq)
        found = row(using, seq)
        assert (found.state, found.attempts, found.forgiven) == (TodoState.RETRY, 2, 2)

    def test_published_and_then_retried(self, using, claimed):
        id_, seq, settle = claimed
        settle(True)
        assert retry(using, seq).skipped == [(id_, "already published")]

    @real_commits
    @pytest.mark.parametrize("done", [True, False])
    @pytest.mark.parametrize("first", ["person", "relay"])
    def test_at_the_same_moment(self, using, claimed, first, done):
        """The second waits for the first to commit, and then sees what it did."""
        id_, seq, settle = claimed
        verbs = [lambda: retry(using, seq, reset_attempts=True), lambda: settle(done)]
        if first == "relay":
            verbs.reverse()
        errors, results = [], []

        def second():
            try:
                results.append(verbs[1]())
            except Exception as error:  # noqa: BLE001 - told to the main thread
                errors.append(error)
            finally:
                connections[using].close()

        thread = threading.Thread(target=second)
        with transaction.atomic(using=using):
            results.append(verbs[0]())
            thread.start()
            thread.join(0.3)
            assert thread.is_alive()
        thread.join(30)
        assert errors == []
        found = history(id_, using)
        (outcome,) = filter(None, results)
        if done:
            assert found.state == found.events[-1].name == "published"
            assert (outcome.changed == [id_]) == (first == "person")
        else:
            assert found.state == "retrying"
            assert found.attempts == (1 if first == "person" else 0)

    @real_commits
    @pytest.mark.postgres
    @pytest.mark.parametrize("first_to_wait", ["relay", "person"])
    def test_both_take_the_rows_in_one_order(self, drain, send, using, first_to_wait):
        """Else each would wait for the other, and the database would end one of them."""
        if connections[using].vendor != "postgresql":
            pytest.skip("SQLite has one writer at a time")
        (_, first), (_, second) = send("", "")
        drain(Status.NACKED)
        make_due()
        held = stores[using].acquire("default", 0, 1, uuid.uuid4(), LEASE)
        failed = Failed("nacked", "no", LATER)
        errors = []

        def run(verb):
            try:
                verb()
            except Exception as error:  # noqa: BLE001 - told to the main thread
                errors.append(error)
            finally:
                connections[using].close()

        verbs = [
            lambda: stores[using].settle(held, {second: failed, first: failed}, LEASE),
            lambda: retry(using, second, first),
        ]
        if first_to_wait == "person":
            verbs.reverse()
        threads = [threading.Thread(target=run, args=(verb,)) for verb in verbs]
        with transaction.atomic(using=using):
            # Both wait for this row now, in the order of their coming.
            OutboxTodo.objects.using(using).select_for_update().get(seq=first)
            for thread in threads:
                thread.start()
                thread.join(0.3)
                assert thread.is_alive()
        for thread in threads:
            thread.join(30)
        assert errors == []
        assert [row(using, seq).attempts for seq in (first, second)] == [2, 2]
