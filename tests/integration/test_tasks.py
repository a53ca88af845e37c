"""Celery's door: a bounded drain, in as many workers at once as like."""

import time

import pytest
from celery import Celery
from django.db import transaction

from outbox import Draft, publish_many
from outbox.models import OutboxTodo
from outbox.runtime import hub
from outbox.tasks import BEAT_SCHEDULE, _relays, drain

pytestmark = pytest.mark.django_db(databases=["default", "sqlite"])


@pytest.fixture(autouse=True)
def records(settings):
    settings.OUTBOX = settings.OUTBOX | {
        "BROKERS": {
            "default": {"BACKEND": "outbox.brokers.memory.MemoryPublisher"},
            "down": {"BACKEND": "tests.outbox_support.DownPublisher"},
        },
        "ROUTES": [("d.*", "down"), ("*", "default")],
    }
    _relays._relays.clear()
    yield hub.get("default").records
    hub.get("default").clear()
    _relays._relays.clear()


def send(*topics, using="default"):
    with transaction.atomic(using=using):
        publish_many([Draft(topic, None) for topic in topics], using=using)


def test_all_brokers_with_their_reports(records):
    send("a", "d.b", "c")
    reports = drain()
    assert set(reports) == {"default", "down"}
    assert (reports["default"]["published"], reports["default"]["outage"]) == (2, "")
    assert reports["down"]["outage"] == "BrokerUnavailable: connection refused"
    assert sorted(record.topic for record in records()) == ["a", "c"]


def test_one_broker_of_one_database():
    send("a", using="sqlite")
    reports = drain(broker="default", using="sqlite")
    assert reports["default"]["published"] == 1
    assert not OutboxTodo.objects.using("sqlite").exists()


def test_an_outage_is_said_once_and_the_next_runs_are_cheap(caplog, django_assert_num_queries):
    send("d.b")
    _relays.get("down", "default")._pacing.failed(ConnectionError())
    _relays.get("down", "default")._pacing._paused_until = time.monotonic() + 60
    with django_assert_num_queries(0):
        assert drain(broker="down")["down"]["outage"] == "paused after an outage"
    assert len(caplog.records) == 1


def test_a_commit_during_the_run_is_seen(records, monkeypatch):
    """Its nudge may have been saved, because one had just been sent."""
    send("a")
    relay = _relays.get("default", "default")
    late = ["b"]
    monkeypatch.setattr(relay, "_keep_alive", lambda: records() and late and send(late.pop()))
    assert drain(broker="default")["default"]["published"] == 2


def test_is_bounded(settings):
    settings.OUTBOX = settings.OUTBOX | {"BATCH_SIZE": 1}
    send(*"abcdef")
    reports = drain(broker="default", seconds=1e-9)
    assert reports["default"]["published"] <= 1
    assert OutboxTodo.objects.count() >= 5


def test_beat_sends_the_task_and_no_clock_decides_whether_it_runs():
    with Celery(broker="memory://", set_as_current=False) as app:
        (entry,) = BEAT_SCHEDULE.values()
        assert entry["task"] == drain.name
        app.send_task(entry["task"], **entry["options"])
        with (
            app.connection_for_read() as connection,
            connection.SimpleQueue("celery") as tasks,
        ):
            message = tasks.get(timeout=5)
            message.ack()
    assert message.headers["task"] == "outbox.tasks.drain"
    # Celery's own limit is a time of the sender's clock, which the worker compares with its own.
    assert message.headers["expires"] is None
    assert message.properties["expiration"] == str(int(entry["schedule"] * 1000))
