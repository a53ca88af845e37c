"""The worker's loop over the memory broker, and the command around it."""

import datetime as dt
import json
import signal
import threading
import time
import uuid
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connection, connections, transaction
from django.db.models.functions import Now

from inbox import Retry, handler, trouble
from inbox.brokers.base import Consumer
from inbox.delivery import Delivery, Disposition
from inbox.exceptions import ConsumerUnavailable, HandlerNotFound, InboxError
from inbox.models import InboxMessage, State
from inbox.testing import handlers, override_inbox
from inbox.worker import Worker, WorkerReport
from outbox.runtime import hub
from outbox.wire import Message, to_headers

# Threads have connections of their own, so what they read must be committed.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _no_handlers():
    with handlers():
        yield


@pytest.fixture
def place():
    name = uuid.uuid4().hex
    broker = {"BACKEND": "inbox.brokers.memory.MemoryConsumer", "OPTIONS": {"name": name}}
    with override_inbox(BROKERS={"default": broker}):
        yield hub.get(name)


def make(body=b"1"):
    now = dt.datetime.now(dt.UTC)
    return Message(id=uuid.uuid4(), topic="t", body=body, source="/shop", time=now)


def send(place, *messages):
    for message in messages:
        place.append(hub.Record("t", to_headers(message, "ce-"), message.body))


def drain(group="g", **arguments):
    return Worker(group).run(threading.Event(), "drain", **arguments)


class Broken(Consumer):
    """A broker that is away for the first calls of `open`, then brings one message."""

    silence = 0.01

    def __init__(self, failures=0, deliveries=()):
        super().__init__("default", "", {}, group="g", topics=["t"], prefetch=1)
        self.failures, self.deliveries, self.settled = failures, list(deliveries), []

    def open(self):
        if self.failures:
            self.failures -= 1
            raise ConsumerUnavailable("it is away")

    def close(self):
        pass

    def poll(self, timeout):
        if not self.deliveries:
            time.sleep(timeout)
        return [self.deliveries.pop(0)] if self.deliveries else []

    def settle(self, delivery, disposition):
        self.settled.append(disposition)


def test_drain_takes_everything_and_counts_it(place):
    seen = []
    handler("t", group="g")(seen.append)
    message = make()
    send(place, message, message, make(b"2"))
    place.append(hub.Record("t", {}, b"x"))
    report = drain()
    counts = (report.received, report.processed, report.duplicate, report.unreadable)
    assert counts == (4, 2, 1, 1)
    assert len(seen) == 2
    assert drain().received == 0


def test_once_is_one_round(place):
    handler("t", group="g")(lambda _: None)
    send(place, make(), make())
    assert Worker("g").run(threading.Event(), "once").received == 1


def test_max_messages_leaves_the_rest_to_the_broker(place):
    handler("t", group="g")(lambda _: None)
    send(place, *[make(b"%d" % n) for n in range(4)])
    assert drain(max_messages=3).received == 3
    assert drain().received == 1


def test_stop_finishes_the_running_handler_and_settles_it(place):
    stop, seen = threading.Event(), []

    def work(message):
        stop.set()
        seen.append(message)

    handler("t", group="g")(work)
    send(place, make(), make())
    report = Worker("g").run(stop)
    assert (report.processed, len(seen)) == (1, 1)
    assert drain().received == 1


def test_due_retries_are_run_and_drain_waits_for_none_of_the_future(place):
    attempts = []

    def fail_once(message):
        attempts.append(message.id)
        if len(attempts) == 1:
            raise Retry(after=timedelta(hours=1))

    handler("t", group="g")(fail_once)
    send(place, make())
    assert drain().parked == 1
    InboxMessage.objects.update(next_attempt_at=Now())
    report = drain()
    assert (report.received, report.processed) == (0, 1)
    assert InboxMessage.objects.get().state == State.PROCESSED


def test_many_due_retries_do_not_starve_the_broker(place):
    order = []

    def note(message):
        order.append(message.body)
        if message.body == b"1" and order.count(b"1") <= 12:
            raise Retry

    handler("t", group="g")(note)
    send(place, *[make() for _ in range(12)])
    assert drain().parked == 12
    InboxMessage.objects.update(next_attempt_at=Now())
    send(place, make(b"2"))
    Worker("g").run(threading.Event(), max_messages=1)
    assert order[12:] == [b"1"] * 10 + [b"2"]


def test_a_broker_that_is_away_is_said_once_and_waited_for(caplog):
    handler("t", group="g")(lambda _: None)
    consumer = Broken(3, [Delivery.of(make(), "g")])
    report = Worker("g", consumer=consumer).run(threading.Event(), max_messages=1)
    assert (report.processed, consumer.settled) == (1, [Disposition.ACK])
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "group g: broker 'default' is unavailable: it is away",
        "group g: broker 'default' is available again after 3 tries",
    ]


def test_a_stop_ends_the_wait_for_a_broker():
    handler("t", group="g")(lambda _: None)
    stop = threading.Event()
    consumer = Broken(10**9)

    def run():
        Worker("g", consumer=consumer).run(stop)
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    while consumer.failures == 10**9:
        time.sleep(0.001)
    started = time.monotonic()
    stop.set()
    thread.join(5)
    assert time.monotonic() - started < 1
    # Waiting grows: a loop without pauses would have tried thousands of times.
    assert 10**9 - consumer.failures < 20


def test_a_bounded_run_ends_when_the_broker_is_away():
    handler("t", group="g")(lambda _: None)
    with pytest.raises(ConsumerUnavailable):
        Worker("g", consumer=Broken(1)).run(threading.Event(), "drain")


def locked():
    error, cause = OperationalError("database is locked"), Exception()
    cause.sqlite_errorcode = 5
    error.__cause__ = cause
    return error


def test_a_database_in_trouble_is_said_once_and_nothing_is_lost(place, caplog):
    troubles = [locked(), locked()]

    def work(message):
        if troubles:
            raise troubles.pop()

    handler("t", group="g")(work)
    send(place, make())
    report = drain()
    assert (report.received, report.unrecorded, report.processed) == (3, 2, 1)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "group g: the database is unavailable: database is locked",
        "group g: the database is available again after 2 tries",
    ]
    assert InboxMessage.objects.get().attempts == 2 - 1


def test_a_bounded_run_gives_up_on_a_database_that_takes_nothing(place):
    def work(message):
        raise locked()

    handler("t", group="g")(work)
    send(place, make())
    with pytest.raises(InboxError, match="takes nothing"):
        drain()
    # The broker has kept it.
    with handlers():
        handler("t", group="g")(lambda _: None)
        assert drain().processed == 1


def test_an_order_to_exit_ends_the_run_and_the_broker_keeps_the_message(place):
    def leave(message):
        raise SystemExit(3)

    handler("t", group="g")(leave)
    send(place, make())
    with pytest.raises(SystemExit):
        drain()
    with handlers():
        handler("t", group="g")(lambda _: None)
        assert drain().processed == 1


def test_reports_are_sums_of_what_happened(place):
    reports = []
    handler("t", group="g")(lambda _: None)
    send(place, make(), make())
    total = Worker("g", on_report=reports.append).run(threading.Event(), "drain")
    assert sum(report.received for report in reports) == total.received == 2
    assert total.seconds > 0


def test_a_group_without_handlers_is_an_error():
    handler("t", group="known")(lambda _: None)
    with pytest.raises(HandlerNotFound, match="known"):
        Worker("unknown")


def test_connections_are_not_closed_inside_a_transaction():
    with transaction.atomic():
        kept, connection.close_at = connection.connection, 0
        trouble.close_old_connections()
        assert connection.connection is kept
    connection.close_at = 0
    trouble.close_old_connections()
    assert connection.connection is None


class TestCommand:
    def run(self, capsys, *arguments):
        call_command("inbox_consume", "--drain", *arguments)
        return capsys.readouterr().out.splitlines()

    def test_text(self, place, capsys):
        handler("t", group="g")(lambda _: None)
        handler("t", group="h")(lambda _: None)
        send(place, make(), make())
        lines = self.run(capsys)
        assert lines[0] == "inbox_consume ready"
        assert sorted(line.split(" in ")[0] for line in lines[1:-1]) == [
            "g: received 2, processed 2",
            "h: received 2, processed 2",
        ]
        assert lines[-1].startswith("stopped: received 4, processed 4 in ")

    def test_json_lines(self, place, capsys):
        handler("t", group="g")(lambda _: None)
        send(place, make())
        ready, report, stopped = map(json.loads, self.run(capsys, "--json-lines"))
        assert ready == {"v": 1, "event": "ready"}
        assert (report["event"], report["group"], report["processed"]) == ("report", "g", 1)
        assert stopped["event"] == "stopped"
        assert {"v", "event", *WorkerReport.__dataclass_fields__} == set(stopped)

    def test_the_caller_gets_its_signal_handlers_back(self, place, capsys):
        handler("t", group="g")(lambda _: None)
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        self.run(capsys)
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before

    def test_one_group_of_two(self, place, capsys):
        handler("t", group="g")(lambda _: None)
        handler("t", group="h")(lambda _: None)
        send(place, make())
        assert self.run(capsys, "--group", "g")[-1].startswith("stopped: received 1")

    @pytest.mark.parametrize(
        ("arguments", "code"), [([], 2), (["--group", "unknown"], 2), (["--drain", "--once"], 1)]
    )
    def test_usage(self, arguments, code):
        with pytest.raises(CommandError) as caught:
            call_command("inbox_consume", *arguments)
        assert caught.value.returncode == code

    def test_no_such_broker(self):
        handler("t", group="g")(lambda _: None)
        unknown = override_inbox(GROUPS={"g": {"BROKER": "none"}})
        with unknown, pytest.raises(CommandError, match="'none'") as caught:
            call_command("inbox_consume", "--drain")
        assert caught.value.returncode == 1

    def test_the_broker_is_away(self):
        handler("t", group="g")(lambda _: None)
        broker = {
            "BACKEND": "inbox.brokers.rabbitmq.RabbitMQConsumer",
            "URL": "amqp://guest:guest@127.0.0.1:1//",
        }
        with override_inbox(BROKERS={"default": broker}), pytest.raises(CommandError) as caught:
            call_command("inbox_consume", "--drain")
        assert caught.value.returncode == 6

    def test_one_that_fails_stops_the_others(self, place):
        def leave(message):
            raise SystemExit(3)

        handler("t", group="g")(leave)
        handler("t", group="h")(lambda _: None)
        send(place, make())
        # This would not end if the other went on.
        with pytest.raises(SystemExit):
            call_command("inbox_consume")
