"""What happened to a message, as `inbox.history` tells it."""

import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from inbox import Delivery, Reject, Retry, handler, history, process, store
from inbox.models import InboxEvent, InboxMessage, InboxQuarantine
from inbox.processing import Processor
from inbox.testing import deliver, handlers, override_inbox
from inbox.verdicts import ENDED_ITS_PROCESS
from tests.unit.test_inbox_processing import make

pytestmark = pytest.mark.django_db

TOPIC = "orders.placed"


@pytest.fixture(autouse=True)
def _no_handlers():
    with handlers():
        yield


def told(entry):
    return [event.name for event in entry.events]


def failing(*errors, group="mailer"):
    """A handler that raises these in turn, and is content after that."""
    left = list(errors)

    @handler(TOPIC, group=group)
    def run(message):
        if left:
            raise left.pop(0)


def run_due(group="mailer"):
    InboxMessage.objects.update(next_attempt_at=Now())
    return Processor().run_due(group, 1)


def claimed():
    InboxMessage.objects.update(next_attempt_at=Now())
    _verdict, claim = store.claim_due("mailer", 10, "default")
    return claim


def test_an_unknown_id_has_no_history():
    assert history(uuid.uuid4()) == []


def test_what_is_no_id_is_refused():
    with pytest.raises(ValueError, match="badly formed"):
        history("42")


def test_a_message_that_is_processed_at_once_writes_nothing_but_its_row():
    failing()
    deliver(message := make())
    assert not InboxEvent.objects.exists()
    (entry,) = history(str(message.id))
    assert (entry.group, entry.topic, entry.state) == ("mailer", TOPIC, "processed")
    assert (entry.attempts, entry.duplicates, entry.error) == (1, 0, "")
    assert told(entry) == ["received", "processed"]
    assert [event.at for event in entry.events] == [entry.received_at, entry.processed_at]


def test_the_groups_come_by_name():
    failing(group="warehouse")
    failing(ValueError("no"), group="billing")
    message = make()
    for group in ("warehouse", "billing"):
        deliver(message, group)
    assert [(entry.group, entry.state) for entry in history(message.id)] == [
        ("billing", "parked"),
        ("warehouse", "processed"),
    ]


def test_each_failure_is_told_with_its_error_and_what_came_of_it():
    failing(ValueError("no stock"), Retry("later", after=timedelta(seconds=90)))
    deliver(message := make())
    (entry,) = history(message.id)
    assert (entry.state, entry.error_class, entry.error) == ("parked", "ValueError", "no stock")
    assert entry.next_attempt_at is not None
    run_due()
    run_due()
    (entry,) = history(message.id)
    assert (entry.state, entry.attempts) == ("processed", 3)
    assert [(event.name, event.detail) for event in entry.events if event.name != "parked"] == [
        ("received", ""),
        ("failed", "attempt 1: ValueError: no stock"),
        ("failed", "attempt 2: Retry: later"),
        ("processed", "attempt 3"),
    ]
    parked = [event.detail for event in entry.events if event.name == "parked"]
    assert parked[1] == "runs again in 90 s"
    assert [event.at for event in entry.events] == sorted(event.at for event in entry.events)


def test_a_message_that_is_given_up_says_so():
    failing(Reject("bad order"))
    deliver(message := make())
    (entry,) = history(message.id)
    assert entry.state == "dead"
    assert [(event.name, event.detail) for event in entry.events[1:]] == [
        ("failed", "attempt 1: Reject: bad order"),
        ("dead", "given up after 1 attempt"),
    ]


def test_a_failure_that_is_not_recorded_is_not_told():
    failing(ValueError("no"))
    deliver(message := make())
    zombie = claimed()
    claimed()
    before = told(*history(message.id))
    assert not store.fail(zombie, ENDED_ITS_PROCESS, "default")
    assert told(*history(message.id)) == before


def test_duplicates_are_one_event_however_many_there_are():
    failing()
    message = make()
    for _ in range(4):
        deliver(message)
    (entry,) = history(message.id)
    assert told(entry) == ["received", "processed", "duplicate"]
    assert entry.duplicates == 3
    assert entry.events[-1].detail == "3 times, this is the last"
    assert entry.events[-1].at >= entry.processed_at
    assert not InboxEvent.objects.exists()


def test_duplicates_from_before_their_time_was_kept_come_last():
    failing()
    message = make()
    deliver(message)
    InboxMessage.objects.update(duplicates=1)
    (entry,) = history(message.id)
    assert (entry.events[-1].name, entry.events[-1].at) == ("duplicate", None)


def test_other_content_under_a_known_id_is_in_the_timeline():
    failing()
    first = make()
    deliver(first)
    deliver(make(b'{"order": 2}', id=first.id))
    (entry,) = history(first.id)
    assert entry.state == "processed"
    assert told(entry) == ["received", "processed", "quarantined"]
    assert entry.events[-1].detail.startswith("same id, other content")


@override_inbox(MAX_BODY=20)
def test_a_group_that_could_not_take_the_message_in_is_told_too():
    failing()
    failing(group="billing")
    message = make(b'{"order": "a body that is too large"}')
    with override_inbox(MAX_BODY=1000):
        deliver(message, "mailer")
    process(Delivery.of(message, "billing"))
    process(Delivery.of(message, "billing"))
    billing, mailer = history(message.id)
    assert mailer.state == "processed"
    assert (billing.group, billing.state, billing.topic) == ("billing", "quarantined", TOPIC)
    assert (billing.attempts, billing.processed_at) == (0, None)
    assert "MAX_BODY" in billing.error
    assert told(billing) == ["quarantined", "quarantined"]
    assert billing.received_at == InboxQuarantine.objects.earliest("id").arrived_at


@pytest.mark.django_db(databases=["default", "sqlite"])
def test_a_group_in_another_database_is_found():
    failing(group="billing")
    failing(group="mailer")
    message = make()
    with override_inbox(GROUPS={"billing": {"DATABASE": "sqlite"}}):
        deliver(message, "billing")
        deliver(message, "mailer")
        assert [entry.group for entry in history(message.id)] == ["billing", "mailer"]
        assert [entry.group for entry in history(message.id, using="sqlite")] == ["billing"]
        assert [entry.group for entry in history(message.id, using="default")] == ["mailer"]


def test_the_history_takes_four_statements_whatever_the_number_of_groups():
    message = make()
    for group in ("a", "b", "c", "d", "e"):
        failing(ValueError("no"), group=group)
        deliver(message, group)
    with CaptureQueriesContext(connection) as queries:
        assert len(history(message.id)) == 5
    assert len(queries) == 4
