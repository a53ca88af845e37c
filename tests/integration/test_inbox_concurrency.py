"""Real transactions and real concurrency. PostgreSQL where it matters, else any database."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, connections, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from demo_app.models import Bill, Mail, Order, OrderLine
from inbox import Delivery, Disposition, Retry, handler, store
from inbox.delivery import Result
from inbox.exceptions import HandlerSwallowed
from inbox.models import InboxMessage, InboxQuarantine, State
from inbox.processing import Processor
from inbox.testing import deliver, handlers, override_inbox
from inbox.verdicts import ENDED_ITS_PROCESS, Verdict
from outbox.wire import Message

GROUP, TOPIC = "mailer", "orders.placed"
ACK, RETRY = Disposition.ACK, Disposition.RETRY

pytestmark = pytest.mark.django_db(transaction=True)
postgres = pytest.mark.postgres


@pytest.fixture(autouse=True)
def _no_handlers():
    with handlers():
        yield


def make(body=b"{}", **fields):
    known = {"id": uuid.uuid4(), "source": "/shop", "time": dt.datetime.now(dt.UTC), "key": "1"}
    return Message(topic=TOPIC, body=body, **{**known, **fields})


def write(message):
    Mail.objects.create(invoice=message.key, message_id=message.id, subject="written")


def register(function):
    return handler(TOPIC, group=GROUP)(function)


def effects(message):
    return Mail.objects.filter(message_id=message.id).count()


def row(message):
    return InboxMessage.objects.get(message_id=message.id)


def in_thread(function, *arguments):
    """Run it as a consumer does: in a thread with connections of its own."""

    def run():
        try:
            return function(*arguments)
        finally:
            connections.close_all()

    pool = ThreadPoolExecutor(1)
    future = pool.submit(run)
    pool.shutdown(wait=False)
    return future


class Gate:
    """A handler that writes, says so, and waits to be let go."""

    def __init__(self, error=None):
        self.entered, self.go, self.runs, self.error = (
            threading.Event(),
            threading.Event(),
            0,
            error,
        )

    def __call__(self, message):
        self.runs += 1
        write(message)
        self.entered.set()
        assert self.go.wait(20)
        if self.error is not None and self.runs == 1:
            raise self.error


def waits_for_a_lock():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND wait_event_type = 'Lock'"
        )
        return cursor.fetchone()[0]


def until(condition, patience=10):
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_happy_path_is_four_statements():
    register(write)
    with CaptureQueriesContext(connection) as queries:
        assert deliver(make()).result is Result.PROCESSED
    assert [query["sql"].split()[0] for query in queries] == ["BEGIN", "INSERT", "INSERT", "COMMIT"]


def test_inside_a_transaction_it_refuses_to_run():
    register(write)
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        deliver(make())
    assert not InboxMessage.objects.exists()


@postgres
@pytest.mark.parametrize("redelivered", [False, True])
def test_a_twin_waits_for_the_first_and_is_a_duplicate(redelivered):
    gate = register(Gate())
    message = make()
    twin = Delivery.of(message, GROUP, redelivered=redelivered)
    first = in_thread(Processor().handle, Delivery.of(message, GROUP))
    assert gate.entered.wait(10)
    second = in_thread(Processor().handle, twin)
    until(waits_for_a_lock)
    assert not second.done()
    gate.go.set()
    assert (first.result(10).result, second.result(10).result) == (
        Result.PROCESSED,
        Result.DUPLICATE,
    )
    assert (effects(message), gate.runs, row(message).duplicates) == (1, 1, 1)


@postgres
@pytest.mark.parametrize("redelivered", [False, True])
def test_a_twin_runs_when_the_first_has_failed(redelivered):
    gate = register(Gate(error=LookupError()))
    message = make()
    first = in_thread(Processor().handle, Delivery.of(message, GROUP, redelivered=redelivered))
    assert gate.entered.wait(10)
    second = in_thread(Processor().handle, Delivery.of(message, GROUP, redelivered=True))
    until(waits_for_a_lock)
    gate.go.set()
    outcomes = {first.result(10).result, second.result(10).result}
    # Whoever gets the row first: parked and left alone, or taken over and processed.
    assert outcomes <= {Result.PARKED, Result.PROCESSED, Result.DUPLICATE}
    state = row(message).state
    assert effects(message) == (state == State.PROCESSED)
    assert state in {State.PARKED, State.PROCESSED}


@postgres
def test_the_same_id_with_other_content_at_once():
    gate = register(Gate())
    message = make()
    first = in_thread(deliver, message)
    assert gate.entered.wait(10)
    second = in_thread(deliver, make(b"7", id=message.id))
    until(waits_for_a_lock)
    gate.go.set()
    assert first.result(10).result is Result.PROCESSED
    assert second.result(10).result is Result.QUARANTINED
    assert (effects(message), InboxQuarantine.objects.count()) == (1, 1)


@postgres
def test_a_failed_run_whose_id_other_content_took_meanwhile_is_a_conflict():
    gate = register(Gate(error=LookupError()))
    message, other = make(), make(b"7")
    first = in_thread(deliver, message)
    assert gate.entered.wait(10)
    second = in_thread(deliver, make(b"7", id=message.id))
    until(waits_for_a_lock)
    gate.go.set()
    results = [first.result(10).result, second.result(10).result]
    assert results in (
        [Result.QUARANTINED, Result.PROCESSED],
        [Result.PARKED, Result.QUARANTINED],
    )
    assert other.id != message.id


@postgres
def test_many_copies_at_once_have_one_effect():
    register(write)
    messages = [make(b"%d" % n) for n in range(5)]
    copies = [(m, flag) for m in messages for flag in (False, True, False, True)]

    def consume(part):
        return [
            Processor().handle(Delivery.of(message, GROUP, redelivered=flag)).result
            for message, flag in part
        ]

    futures = [in_thread(consume, copies[n:] + copies[:n]) for n in (0, 3, 6, 9)]
    results = [result for future in futures for result in future.result(30)]
    assert results.count(Result.PROCESSED) == 5
    assert [effects(message) for message in messages] == [1] * 5
    assert {row(message).state for message in messages} == {State.PROCESSED}


@postgres
@pytest.mark.parametrize("redelivered", [False, True])
def test_a_connection_that_dies_in_mid_handler_is_no_attempt(redelivered):
    def die_once(message):
        write(message)
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            pid = cursor.fetchone()[0]
        in_thread(terminate, pid).result(10)
        write(message)

    message = make()
    delivery = Delivery.of(message, GROUP, redelivered=redelivered)
    processor = Processor()
    with handlers():
        register(die_once)
        outcome = in_thread(processor.handle, delivery).result(10)
        assert (outcome.disposition, outcome.result) == (RETRY, Result.UNRECORDED)
    assert effects(message) == 0
    attempts = InboxMessage.objects.filter(message_id=message.id).values_list("attempts", flat=True)
    assert list(attempts) == ([0] if redelivered else [])
    register(write)
    assert in_thread(processor.handle, delivery).result(10).result is Result.PROCESSED
    assert (effects(message), row(message).attempts) == (1, 1)


@postgres
def test_a_handler_that_swallows_the_loss_of_its_connection_is_no_success():
    def swallow(message):
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            in_thread(terminate, cursor.fetchone()[0]).result(10)
        try:
            write(message)
        except Exception:  # noqa: BLE001 - that is the point
            return

    register(swallow)
    outcome = in_thread(deliver, make()).result(10)
    assert (outcome.disposition, outcome.result) == (RETRY, Result.UNRECORDED)


def terminate(pid):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])


@postgres
def test_an_error_swallowed_from_a_raw_cursor_is_no_success():
    """PostgreSQL answers COMMIT of a failed transaction with ROLLBACK, and nobody raises."""

    def swallow(message):
        write(message)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1/0")
        except Exception:  # noqa: BLE001 - that is the point
            return

    register(swallow)
    message = make()
    outcome = deliver(message)
    assert isinstance(outcome.error, HandlerSwallowed)
    assert (row(message).state, effects(message)) == (State.PARKED, 0)


@postgres
@pytest.mark.parametrize("statement", ["ROLLBACK", "COMMIT"])
def test_a_handler_that_ends_the_transaction_itself(statement):
    def end(message):
        write(message)
        with connection.cursor() as cursor:
            cursor.execute(statement)

    register(end)
    message = make()
    outcome = deliver(message)
    kept = statement == "COMMIT"
    assert effects(message) == kept
    assert row(message).state == (State.PROCESSED if kept else State.PARKED)
    assert outcome.disposition is ACK


def test_a_handler_that_closes_its_connection_runs_out_of_attempts():
    def close(message):
        write(message)
        connection.close()

    register(close)
    message = make()
    outcome = deliver(message)
    assert (outcome.result, effects(message)) == (Result.PARKED, 0)


@postgres
def test_a_constraint_that_fails_at_commit_is_the_handlers_fault():
    register(
        lambda _: OrderLine.objects.create(order_id=0, stock_code="", quantity=1, unit_price=1)
    )
    message = make()
    outcome = deliver(message)
    assert outcome.result is Result.PARKED
    assert row(message).error_class == "IntegrityError"
    assert not Order.objects.exists()


def test_a_hook_that_fails_after_the_commit_undoes_nothing(caplog):
    def hook():
        raise LookupError("hook")

    def write_and_hook(message):
        write(message)
        transaction.on_commit(hook)

    register(write_and_hook)
    message = make()
    outcome = deliver(message)
    assert (outcome.disposition, outcome.result) == (ACK, Result.PROCESSED)
    assert isinstance(outcome.error, LookupError)
    assert (row(message).state, effects(message)) == (State.PROCESSED, 1)
    assert "on_commit hook failed" in caplog.text


@postgres
def test_deadlocks_are_no_attempts():
    """Two handlers take two rows in opposite order; PostgreSQL ends one of them."""
    rows = [Bill.objects.create(invoice=str(n), message_id=uuid.uuid4(), amount=0) for n in (1, 2)]
    barrier = threading.Barrier(2, timeout=10)

    def cross(message):
        order = rows if message.key == "a" else rows[::-1]
        Bill.objects.filter(pk=order[0].pk).update(amount=1)
        barrier.wait()
        Bill.objects.filter(pk=order[1].pk).update(amount=1)
        write(message)

    register(cross)
    futures = [in_thread(deliver, make(key=key)) for key in ("a", "b")]
    results = sorted(future.result(30).result for future in futures)
    assert results == [Result.PROCESSED, Result.UNRECORDED]
    assert InboxMessage.objects.count() == 1


class TestDue:
    def park(self, count=1):
        with handlers():
            register(lambda _: (_ for _ in ()).throw(Retry(after=timedelta(0))))
            messages = [make(b"%d" % n) for n in range(count)]
            for message in messages:
                assert deliver(message).result is Result.PARKED
        InboxMessage.objects.update(next_attempt_at=Now())
        return messages

    def test_processed(self):
        (message,) = self.park()
        register(write)
        assert [o.result for o in Processor().run_due(GROUP, limit=5)] == [Result.PROCESSED]
        assert (row(message).state, row(message).attempts, effects(message)) == (
            State.PROCESSED,
            2,
            1,
        )

    @postgres
    def test_a_running_retry_is_not_claimed_even_when_its_lease_is_over(self):
        (message,) = self.park()
        gate = register(Gate())
        first = in_thread(Processor().run_due, GROUP, 1)
        assert gate.entered.wait(10)
        # The lease cannot be moved while the row is locked: look as a consumer an hour later would.
        assert in_thread(Processor().run_due, GROUP, 5).result(10) == []
        gate.go.set()
        assert [o.result for o in first.result(10)] == [Result.PROCESSED]
        assert (gate.runs, effects(message)) == (1, 1)

    @postgres
    def test_many_consumers_run_each_retry_once(self):
        messages = self.park(12)
        register(write)
        futures = [in_thread(Processor().run_due, GROUP, 20) for _ in range(4)]
        results = [outcome.result for future in futures for outcome in future.result(30)]
        assert results == [Result.PROCESSED] * 12
        assert [effects(message) for message in messages] == [1] * 12

    @postgres
    def test_a_claim_that_was_taken_over_changes_nothing(self):
        """The zombie slept between its claim and its run for longer than the lease (fact 5)."""
        (message,) = self.park()
        verdict, zombie = store.claim_due(GROUP, 10, "default")
        assert (verdict, zombie.token) == (Verdict.RUN, 2)
        InboxMessage.objects.update(next_attempt_at=Now())
        assert store.claim_due(GROUP, 10, "default")[1].token == 3
        with transaction.atomic():
            assert not store.take(zombie, "default")
        assert not store.fail(zombie, ENDED_ITS_PROCESS, "default")
        store.give_back(zombie, "default")
        assert (row(message).state, row(message).attempts) == (State.PARKED, 3)


KILLER = """
import os, signal, sys, uuid, datetime as dt
import django
django.setup()
from django.db import connection
from django.test.utils import override_settings
connection.settings_dict["NAME"] = sys.argv[1]
from demo_app.models import Mail
from inbox import Delivery, handler, process
from inbox.processing import Processor
from inbox.testing import handlers, override_inbox
from outbox.wire import Message

def kill(message):
    Mail.objects.create(invoice="1", message_id=message.id, subject="")
    os.kill(os.getpid(), signal.SIGKILL)

message = Message(id=uuid.UUID(sys.argv[2]), topic="orders.placed", body=b"{}", source="/shop",
                  time=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
with handlers(), override_inbox(MAX_ATTEMPTS=3):
    handler("orders.placed", group="mailer")(kill)
    if sys.argv[3] == "due":
        print(Processor().run_due("mailer", 1)[0].result)
    else:
        print(Processor().handle(Delivery.of(message, "mailer", redelivered=True)).result)
"""


def run_killer(message, how):
    name = str(connection.settings_dict["NAME"])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLER), name, str(message.id), how],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "settings.test"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_handler_that_kills_its_process_runs_out_of_attempts():
    message = make(time=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), key="")
    for attempt in (1, 2, 3):
        assert run_killer(message, "redelivered").returncode == -signal.SIGKILL
        assert (row(message).state, row(message).attempts) == (State.RECEIVED, attempt)
    done = run_killer(message, "redelivered")
    assert done.stdout == "dead\n", done.stderr
    assert (row(message).state, effects(message)) == (State.DEAD, 0)


def test_so_does_one_that_is_killed_in_its_stored_retries():
    message = make(time=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), key="")
    with handlers(), override_inbox(MAX_ATTEMPTS=3):
        register(lambda _: (_ for _ in ()).throw(Retry(after=timedelta(0))))
        deliver(message)
    InboxMessage.objects.update(next_attempt_at=Now())
    for attempt in (2, 3):
        assert run_killer(message, "due").returncode == -signal.SIGKILL
        assert (row(message).state, row(message).attempts) == (State.PARKED, attempt)
        assert row(message).next_attempt_at > row(message).received_at + timedelta(seconds=59)
        InboxMessage.objects.update(next_attempt_at=Now())
    done = run_killer(message, "due")
    assert done.stdout == "dead\n", done.stderr
    assert (row(message).state, effects(message)) == (State.DEAD, 0)
