"""A person runs a message again, while consumers are at work."""

import uuid
from datetime import timedelta

import pytest
from django.db import DatabaseError, transaction
from django.db.models.functions import Now

from inbox import Delivery, Reject, Retry, history, store
from inbox.delivery import Result
from inbox.models import InboxEvent, InboxMessage, State
from inbox.processing import Processor
from inbox.reading import read
from inbox.testing import deliver, handlers, override_inbox
from inbox.verdicts import Verdict
from tests.integration.test_inbox_concurrency import (
    GROUP,
    Gate,
    effects,
    in_thread,
    make,
    postgres,
    register,
    row,
    write,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _no_handlers():
    with handlers():
        yield


class Handler:
    """Fails with this error until it is told to work."""

    def __init__(self, error):
        self.error = error
        register(self.run)

    def run(self, message):
        write(message)
        if self.error is not None:
            raise self.error


def retry(rows=None, **who):
    found = InboxMessage.objects.all() if rows is None else rows
    changes = list(store.retry(found, **{"actor": "alice", "reason": "JIRA-12", **who}))
    assert all(change.matched <= store.BATCH for change in changes)
    return (
        sum(len(change.changed) for change in changes),
        [skipped for change in changes for skipped in change.skipped],
    )


def due_now():
    InboxMessage.objects.update(next_attempt_at=Now())


def test_a_dead_message_runs_again_at_once():
    fault = Handler(Reject("bad"))
    deliver(message := make())
    fault.error = None
    assert retry() == (1, [])
    assert [o.result for o in Processor().run_due(GROUP, 5)] == [Result.PROCESSED]
    assert effects(message) == 1
    names = [event.name for event in history(message.id)[0].events]
    assert names == ["received", "failed", "dead", "retried", "processed"]


def test_a_parked_message_does_not_wait_for_its_time():
    fault = Handler(Retry("not yet", after=timedelta(hours=1)))
    deliver(message := make())
    fault.error = None
    assert Processor().run_due(GROUP, 5) == []
    assert retry() == (1, [])
    assert [o.result for o in Processor().run_due(GROUP, 5)] == [Result.PROCESSED]
    assert (effects(message), row(message).attempts) == (1, 2)


def test_who_did_it_and_why_is_recorded_with_the_state_before():
    Handler(Reject("bad"))
    deliver(message := make())
    retry()
    event = InboxEvent.objects.get(message=row(message), name="retried")
    assert (event.actor, event.reason, event.attempt) == ("alice", "JIRA-12", 1)
    told = history(message.id)[0].events[-1]
    assert told.detail == "was dead after attempt 1, by alice, JIRA-12"


def test_without_a_record_nothing_changes(monkeypatch):
    Handler(Reject("bad"))
    deliver(message := make())

    def refuse(*args, **kwargs):
        raise DatabaseError

    monkeypatch.setattr("inbox.store.retrying.InboxEvent.objects", type("M", (), {"using": refuse}))
    with pytest.raises(DatabaseError):
        retry()
    assert row(message).state == State.DEAD


@override_inbox(MAX_ATTEMPTS=2)
def test_a_retry_grants_another_round_of_attempts():
    Handler(ValueError("no"))
    deliver(message := make())
    for _ in range(3):
        due_now()
        Processor().run_due(GROUP, 1)
    assert (row(message).state, row(message).attempts) == (State.DEAD, 2)
    retry()
    assert [o.result for o in Processor().run_due(GROUP, 1)] == [Result.PARKED]
    due_now()
    assert [o.result for o in Processor().run_due(GROUP, 1)] == [Result.DEAD]
    assert row(message).attempts == 4


@override_inbox(MAX_ATTEMPTS=2)
def test_the_round_counts_handlers_that_end_their_process_too():
    Handler(ValueError("no"))
    deliver(message := make())
    due_now()
    Processor().run_due(GROUP, 1)
    retry()
    verdicts = []
    for _ in range(3):
        due_now()
        verdicts.append(store.claim_due(GROUP, 2, "default")[0])
    assert verdicts == [Verdict.RUN, Verdict.RUN, Verdict.EXHAUSTED]
    assert row(message).state == State.DEAD


def test_what_is_done_or_not_decided_is_left_alone():
    fault = Handler(None)
    deliver(done := make())
    store.note(read(Delivery.of(noted := make(), GROUP), 1000), 10, "default")
    count, skipped = retry()
    assert count == 0
    assert {(skip.id, skip.reason) for skip in skipped} == {
        (done.id, "it is processed"),
        (noted.id, "it is received"),
    }
    assert not InboxEvent.objects.exists()
    assert fault.error is None


@postgres
def test_a_message_whose_handler_runs_is_left_to_it():
    Handler(ValueError("no"))
    deliver(message := make())
    due_now()
    with handlers():
        gate = register(Gate())
        running = in_thread(Processor().run_due, GROUP, 1)
        assert gate.entered.wait(10)
        count, skipped = retry()
        gate.go.set()
        assert [o.result for o in running.result(10)] == [Result.PROCESSED]
    assert (count, [skip.reason for skip in skipped]) == (0, ["a consumer runs it at this moment"])
    assert (effects(message), row(message).state) == (1, State.PROCESSED)


def test_a_run_that_was_counted_and_not_begun_loses_to_the_retry():
    Handler(ValueError("no"))
    deliver(message := make())
    due_now()
    _verdict, slow = store.claim_due(GROUP, 10, "default")
    assert retry() == (1, [])
    with transaction.atomic():
        assert not store.take(slow, "default")
    store.give_back(slow, "default")
    assert row(message).attempts == 2
    due_now()
    verdict, claim = store.claim_due(GROUP, 10, "default")
    assert verdict is Verdict.RUN
    with transaction.atomic():
        assert store.take(claim, "default")


def test_many_are_changed_in_batches():
    Handler(Reject("bad"))
    deliver(make())
    template = InboxMessage.objects.get()
    copies = []
    for _ in range(store.BATCH + 1):
        copy = InboxMessage.objects.get(pk=template.pk)
        copy.pk, copy.message_id = None, uuid.uuid4()
        copies.append(copy)
    InboxMessage.objects.bulk_create(copies)
    changes = list(store.retry(InboxMessage.objects.filter(state=State.DEAD), actor="alice"))
    assert [len(change.changed) for change in changes] == [store.BATCH, 2]
    assert not InboxMessage.objects.filter(state=State.DEAD).exists()
    assert InboxEvent.objects.filter(name="retried").count() == store.BATCH + 2


@postgres
def test_two_people_at_once_change_each_message_once():
    Handler(Reject("bad"))
    for _ in range(6):
        deliver(make())
    dead = InboxMessage.objects.filter(state=State.DEAD)
    with transaction.atomic():
        held = list(dead.order_by("pk")[:2].select_for_update())
        count, skipped = in_thread(retry, dead).result(10)
    assert (count, len(skipped)) == (4, len(held))
