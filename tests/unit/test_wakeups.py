"""The nudge after a commit, through a real Celery application on its memory transport."""

import logging
import queue
import time
from contextlib import suppress

import pytest
from celery import Celery
from django.db import transaction

from outbox import publish, wakeups
from outbox.models import OutboxMessage
from tests.outbox_support import rolled_back

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

NOWHERE = "amqp://127.0.0.1:1//"


@pytest.fixture(autouse=True)
def _fresh(settings, monkeypatch):
    settings.OUTBOX = settings.OUTBOX | {
        "WAKEUP": "celery",
        "BROKERS": {
            "default": {"BACKEND": "outbox.brokers.memory.MemoryPublisher"},
            "stream": {"BACKEND": "outbox.brokers.memory.MemoryPublisher"},
        },
        "ROUTES": [("s.*", "stream"), ("*", "default")],
    }
    monkeypatch.setattr(wakeups, "_quiet_until", {})
    monkeypatch.setattr(wakeups, "_failing", False)


@pytest.fixture
def celery_app(request):
    with Celery(broker=getattr(request, "param", "memory://"), set_as_current=False) as app:
        app.set_current()
        app.set_default()
        yield app


@pytest.fixture
def nudges(celery_app):
    """What has been sent since the last call: the arguments of each task, by its name."""

    def sent():
        with (
            celery_app.connection_for_read() as connection,
            connection.SimpleQueue("celery") as tasks,
        ):
            found = []
            with suppress(queue.Empty):
                while message := tasks.get_nowait():
                    message.ack()
                    found.append((message.headers["task"], message.payload[1]))
            return found

    sent()
    return sent


def test_only_after_the_commit(nudges):
    with transaction.atomic():
        publish("a.b", 1)
        assert nudges() == []
    assert nudges() == [("outbox.tasks.drain", {"broker": "default", "using": "default"})]


def test_not_after_a_rollback(nudges):
    with rolled_back():
        publish("a.b", 1)
    with transaction.atomic(), rolled_back():
        publish("a.b", 1)
    assert nudges() == []


def test_many_commits_in_a_short_while_are_one(nudges, monkeypatch):
    monkeypatch.setattr(wakeups, "DEBOUNCE", 60)
    for _ in range(5):
        with transaction.atomic():
            publish("a.b", 1)
            publish("a.b", 2)
    assert len(nudges()) == 1


def test_after_the_short_while_there_is_another(nudges, monkeypatch):
    monkeypatch.setattr(wakeups, "DEBOUNCE", 0)
    for _ in range(2):
        with transaction.atomic():
            publish("a.b", 1)
    assert len(nudges()) == 2


def test_each_broker_and_database_has_its_own(nudges, monkeypatch):
    monkeypatch.setattr(wakeups, "DEBOUNCE", 60)
    with transaction.atomic(), transaction.atomic(using="sqlite"):
        publish("a.b", 1)
        publish("s.b", 1)
        publish("a.b", 1, using="sqlite")
    found = sorted((kwargs["broker"], kwargs["using"]) for _task, kwargs in nudges())
    assert found == [("default", "default"), ("default", "sqlite"), ("stream", "default")]


def test_off_by_default(nudges, settings):
    settings.OUTBOX = {key: settings.OUTBOX[key] for key in ("SOURCE", "BROKERS")}
    with transaction.atomic():
        publish("a.b", 1)
    assert nudges() == []


@pytest.mark.parametrize("celery_app", [NOWHERE], indirect=True)
def test_a_dead_celery_broker_is_said_once_and_hurts_nobody(celery_app, caplog, monkeypatch):
    monkeypatch.setattr(wakeups, "SILENCE", 0)
    caplog.set_level(logging.INFO, "outbox.wakeups")
    ran = []
    for n in range(3):
        with transaction.atomic():
            transaction.on_commit(lambda n=n: ran.append(("before", n)))
            publish("a.b", n)
            transaction.on_commit(lambda n=n: ran.append(("after", n)))
    assert ran == [(when, n) for n in range(3) for when in ("before", "after")]
    assert OutboxMessage.objects.count() == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "it will poll until this works" in caplog.text


@pytest.mark.parametrize("celery_app", [NOWHERE], indirect=True)
def test_requests_do_not_wait_for_it_again_and_again(celery_app, monkeypatch):
    tried = []
    send = wakeups._send
    monkeypatch.setattr(wakeups, "_send", lambda *to: (tried.append(to), send(*to)))
    monkeypatch.setattr(wakeups, "DEBOUNCE", 0)
    began = time.monotonic()
    for n in range(5):
        with transaction.atomic():
            publish("a.b", n)
    assert len(tried) == 1
    assert time.monotonic() - began < 1.5


def test_said_again_after_it_has_worked(celery_app, nudges, caplog, monkeypatch):
    monkeypatch.setattr(wakeups, "SILENCE", 0)
    monkeypatch.setattr(wakeups, "DEBOUNCE", 0)
    with Celery(broker=NOWHERE, set_as_current=False) as dead:
        for app in (dead, celery_app, dead):
            app.set_current()
            with transaction.atomic():
                publish("a.b", 1)
    assert [record.name for record in caplog.records].count("outbox.wakeups") == 2
    assert len(nudges()) == 1
