"""The processor on whatever database the settings name; inside Django's TestCase transaction."""

import contextlib
import datetime as dt
import logging
import uuid
from datetime import timedelta

import pytest
from django.db import DatabaseError, IntegrityError, OperationalError, connection, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from demo_app.models import Mail
from inbox import Delivery, Disposition, Reject, Retry, handler, process
from inbox.delivery import Result
from inbox.exceptions import HandlerSwallowed
from inbox.models import InboxMessage, InboxQuarantine, Reason, State
from inbox.processing import Processor
from inbox.testing import deliver, handlers, override_inbox
from outbox.wire import Message, fingerprint

pytestmark = pytest.mark.django_db

GROUP = "mailer"
TOPIC = "orders.placed"


@pytest.fixture(autouse=True)
def _no_handlers():
    with handlers():
        yield


def make(body=b'{"order": 1}', *, topic=TOPIC, **fields):
    known = {
        "id": uuid.uuid4(),
        "source": "/shop",
        "time": dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC),
        "key": "42",
        "headers": {"traceparent": "00-1"},
    }
    return Message(topic=topic, body=body, **{**known, **fields})


def write(message):
    Mail.objects.create(invoice=message.key, message_id=message.id, subject="written")


def register(function, topic=TOPIC, group=GROUP):
    return handler(topic, group=group)(function)


def writing_then(error):
    """A handler that writes and then fails, so that a write that survives is seen."""

    def fail(message):
        write(message)
        raise error

    return register(fail)


def row(message):
    return InboxMessage.objects.get(group_name=GROUP, message_id=message.id)


class TestRunning:
    def test_the_effect_and_the_row_are_there(self):
        register(write)
        outcome = deliver(message := make())
        assert (outcome.disposition, outcome.result) == (Disposition.ACK, Result.PROCESSED)
        assert Mail.objects.filter(message_id=message.id).count() == 1
        taken = row(message)
        assert (taken.state, taken.attempts, taken.duplicates) == (State.PROCESSED, 1, 0)
        assert bytes(taken.fingerprint) == fingerprint(message)
        assert taken.body is None
        assert taken.processed_at is not None

    def test_the_handler_gets_the_message_as_it_was_published(self):
        seen = []
        register(seen.append)
        deliver(message := make(key="", headers={"a": "ü"}))
        assert seen == [message]

    def test_a_coroutine_runs_in_the_same_transaction(self):
        async def write_later(message):
            await Mail.objects.acreate(invoice="1", message_id=message.id, subject="async")
            message.payload["absent"]

        register(write_later)
        assert deliver(make()).result is Result.PARKED
        assert not Mail.objects.exists()

    def test_the_happy_path_is_one_statement_beside_the_handlers_own(self):
        register(write)
        message = make()
        with CaptureQueriesContext(connection) as queries:
            deliver(message)
        statements = [query["sql"].split()[0] for query in queries]
        # In a TestCase the transaction is a savepoint.
        assert statements == ["SAVEPOINT", "INSERT", "INSERT", "RELEASE"]

    def test_process_is_public(self):
        register(write)
        assert process(Delivery.of(make(), GROUP)) is Disposition.ACK

    def test_an_awaitable_that_nobody_awaited_is_a_failure(self):
        async def write_never(message):
            write(message)

        coroutines = []

        def forget(message):
            coroutines.append(write_never(message))
            return coroutines[0]

        register(forget)
        outcome = deliver(make())
        coroutines[0].close()
        assert outcome.result is Result.PARKED
        assert "async def" in str(outcome.error)


class TestRepeats:
    def test_a_repeat_is_counted_and_runs_nothing(self):
        register(write)
        message = make()
        deliver(message)
        outcome = deliver(message)
        assert (outcome.disposition, outcome.result) == (Disposition.ACK, Result.DUPLICATE)
        assert Mail.objects.count() == 1
        assert row(message).duplicates == 1

    def test_each_group_has_its_own_effect(self):
        register(write)
        register(write, group="other")
        message = make()
        deliver(message, GROUP)
        deliver(message, "other")
        assert Mail.objects.filter(message_id=message.id).count() == 2

    def test_white_space_and_member_order_are_the_same_content(self):
        register(write)
        first = make(b'{"a":1,"b":2}')
        deliver(first)
        assert deliver(make(b'{ "b": 2, "a": 1 }', id=first.id)).result is Result.DUPLICATE

    def test_a_repeat_that_the_broker_flags_is_counted_too(self):
        register(write)
        message = make()
        for _ in range(3):
            Processor().handle(Delivery.of(message, GROUP, redelivered=True))
        assert (row(message).duplicates, row(message).attempts) == (2, 1)

    @pytest.mark.parametrize(
        "change", [{"body": b'{"order": 2}'}, {"key": "43"}, {"topic": "orders.cancelled"}]
    )
    def test_other_content_under_the_same_id_is_quarantined(self, change):
        register(write)
        register(write, topic="orders.cancelled")
        first = make()
        deliver(first)
        forged = make(**{"id": first.id, **change})
        outcome = deliver(forged)
        assert (outcome.disposition, outcome.result) == (Disposition.ACK, Result.QUARANTINED)
        assert Mail.objects.count() == 1
        kept = InboxQuarantine.objects.get()
        assert (kept.reason, kept.message_id, kept.group_name) == (Reason.CONFLICT, first.id, GROUP)
        assert bytes(kept.fingerprint) == fingerprint(forged)
        assert bytes(kept.known_fingerprint) == fingerprint(first)
        assert bytes(kept.body) == forged.body

    def test_marks_of_another_version_are_not_compared(self):
        register(write)
        message = make()
        deliver(message)
        InboxMessage.objects.update(fp_version=0)
        assert deliver(make(b"7", id=message.id)).result is Result.DUPLICATE

    @pytest.mark.parametrize("state", [State.PARKED, State.DEAD, State.DISCARDED])
    def test_what_failed_before_is_not_run_by_a_repeat(self, state):
        writing_then(LookupError())
        message = make()
        deliver(message)
        InboxMessage.objects.update(state=state)
        for redelivered in (False, True):
            delivery = Delivery.of(message, GROUP, redelivered=redelivered)
            outcome = Processor().handle(delivery)
            assert (outcome.disposition, outcome.result) == (Disposition.ACK, Result.DUPLICATE)
        assert (row(message).state, row(message).attempts) == (state, 1)

    @given(
        deliveries=st.lists(
            st.tuples(st.integers(0, 2), st.booleans(), st.booleans()), min_size=1, max_size=12
        )
    )
    def test_any_order_and_any_number_of_repeats_has_each_effect_once(self, deliveries):
        """(which message, flagged as repeat, does the handler fail this time)"""
        with handlers():
            failing = False

            def write_or_fail(message):
                write(message)
                if failing:
                    raise LookupError

            register(write_or_fail)
            messages = [make(b"%d" % n) for n in range(3)]
            succeeded = set()
            for which, redelivered, failing in deliveries:
                message = messages[which]
                before = InboxMessage.objects.filter(message_id=message.id).first()
                Processor().handle(Delivery.of(message, GROUP, redelivered=redelivered))
                if before is None and not failing:
                    succeeded.add(message.id)
            effects = list(Mail.objects.values_list("message_id", flat=True))
            assert sorted(effects) == sorted(succeeded)
            Mail.objects.all().delete()
            InboxMessage.objects.all().delete()


class TestFailures:
    def test_an_exception_undoes_everything_and_parks(self, caplog):
        # pytest-xdist cannot carry a log line with half a surrogate pair.
        caplog.set_level(logging.CRITICAL, "inbox")
        writing_then(LookupError("no\x00such\ud800order"))
        outcome = deliver(message := make())
        assert (outcome.disposition, outcome.result) == (Disposition.ACK, Result.PARKED)
        assert isinstance(outcome.error, LookupError)
        assert not Mail.objects.exists()
        parked = row(message)
        assert (parked.state, parked.attempts, parked.processed_at) == (State.PARKED, 1, None)
        assert parked.error_class == "LookupError"
        assert parked.error == "no\\x00such\\ud800order"
        assert parked.to_message() == message
        assert timedelta(0) <= parked.next_attempt_at - parked.received_at <= timedelta(seconds=1.1)

    def test_retry_says_when(self):
        writing_then(Retry("not yet", after=timedelta(hours=3)))
        deliver(message := make())
        parked = row(message)
        wait = parked.next_attempt_at - parked.received_at
        assert timedelta(hours=3) <= wait < timedelta(hours=3, seconds=5)
        assert (parked.error_class, parked.error) == ("Retry", "not yet")

    def test_reject_is_dead_at_once(self):
        writing_then(Reject("never"))
        outcome = deliver(message := make())
        assert (outcome.disposition, outcome.result) == (Disposition.ACK, Result.DEAD)
        assert (row(message).state, row(message).next_attempt_at) == (State.DEAD, None)
        assert row(message).to_message() == message

    def test_the_last_attempt_is_dead(self):
        writing_then(LookupError())
        with override_inbox(MAX_ATTEMPTS=1):
            assert deliver(make()).result is Result.DEAD

    def test_no_handler_is_dead_with_a_hint(self):
        outcome = deliver(message := make(), GROUP)
        assert (outcome.disposition, outcome.result) == (Disposition.ACK, Result.DEAD)
        assert "No handler" in row(message).error
        assert deliver(message, GROUP).result is Result.DUPLICATE

    def test_a_deferred_constraint_that_fails_at_commit_is_the_handlers_fault(self):
        writing_then(IntegrityError("insert or update violates foreign key constraint"))
        assert deliver(make()).result is Result.PARKED

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
    def test_an_order_to_exit_goes_through_after_the_rollback(self, error):
        writing_then(error())
        with pytest.raises(error):
            deliver(make())
        assert not Mail.objects.exists()
        assert not InboxMessage.objects.exists()

    def test_an_error_without_a_text_is_recorded(self):
        class Mute(Exception):  # noqa: N818
            def __str__(self):
                raise RuntimeError

        writing_then(Mute())
        deliver(message := make())
        assert "no readable text" in row(message).error

    def test_a_swallowed_database_error_is_no_success(self):
        def swallow(message):
            write(message)
            with contextlib.suppress(DatabaseError):
                Mail.objects.create(pk=Mail.objects.get().pk, invoice="", message_id=message.id)

        register(swallow)
        outcome = deliver(message := make())
        assert outcome.result is Result.PARKED
        assert isinstance(outcome.error, HandlerSwallowed)
        assert not Mail.objects.exists()
        assert row(message).state == State.PARKED

    def test_a_rollback_asked_for_is_no_success(self):
        register(lambda _: transaction.set_rollback(True))
        assert isinstance(deliver(make()).error, HandlerSwallowed)

    def test_an_error_caught_around_a_savepoint_is_fine(self):
        def careful(message):
            with contextlib.suppress(IntegrityError), transaction.atomic():
                raise IntegrityError
            write(message)

        register(careful)
        assert deliver(make()).result is Result.PROCESSED

    def test_raise_errors(self):
        writing_then(LookupError("here"))
        with pytest.raises(LookupError, match="here"):
            deliver(make(), raise_errors=True)


class TestNoting:
    """A delivery that may be a repeat counts its attempt before it runs."""

    def test_success(self):
        register(write)
        message = make()
        outcome = Processor().handle(Delivery.of(message, GROUP, redelivered=True))
        assert outcome.result is Result.PROCESSED
        taken = row(message)
        assert (taken.state, taken.attempts, taken.body) == (State.PROCESSED, 1, None)

    def test_failure(self):
        writing_then(LookupError())
        message = make()
        outcome = Processor().handle(Delivery.of(message, GROUP, redelivered=True))
        assert outcome.result is Result.PARKED
        assert (row(message).state, row(message).attempts) == (State.PARKED, 1)

    def test_a_handler_that_ends_the_run_each_time_runs_out_of_attempts(self):
        runs = []

        def end(message):
            runs.append(message.id)
            raise SystemExit

        register(end)
        message = make()
        delivery = Delivery.of(message, GROUP, redelivered=True)
        with override_inbox(MAX_ATTEMPTS=3):
            for attempt in (1, 2, 3):
                with pytest.raises(SystemExit):
                    Processor().handle(delivery)
                assert (row(message).state, row(message).attempts) == (State.RECEIVED, attempt)
            outcome = Processor().handle(delivery)
        assert (outcome.disposition, outcome.result) == (Disposition.ACK, Result.DEAD)
        assert "ended its process" in row(message).error
        assert len(runs) == 3

    def test_a_fresh_copy_of_a_noted_message_counts_too(self):
        register(write)
        message = make()
        Processor().handle(Delivery.of(message, GROUP, redelivered=True))
        InboxMessage.objects.update(state=State.RECEIVED, body=message.body)
        Mail.objects.all().delete()
        assert deliver(message).result is Result.PROCESSED
        assert row(message).attempts == 2
        assert Mail.objects.count() == 1


class TestTrouble:
    def trouble(self):
        """An error as Django raises it when PostgreSQL finds a deadlock."""
        error, cause = OperationalError("deadlock detected"), Exception()
        cause.sqlstate = "40P01"
        error.__cause__ = cause
        return error

    def test_the_databases_trouble_is_no_attempt(self):
        writing_then(self.trouble())
        message = make()
        for redelivered in (False, True):
            delivery = Delivery.of(message, GROUP, redelivered=redelivered)
            outcome = Processor().handle(delivery)
            assert (outcome.disposition, outcome.result) == (Disposition.RETRY, Result.UNRECORDED)
        assert (row(message).state, row(message).attempts) == (State.RECEIVED, 0)
        assert not Mail.objects.exists()

    def test_nor_for_a_stored_retry(self):
        writing_then(Retry(after=timedelta(0)))
        message = make()
        deliver(message)
        InboxMessage.objects.update(next_attempt_at=Now())
        with handlers():
            writing_then(self.trouble())
            (outcome,) = Processor().run_due(GROUP, limit=9)
        assert outcome.result is Result.UNRECORDED
        assert (row(message).state, row(message).attempts) == (State.PARKED, 1)
        assert InboxMessage.objects.filter(next_attempt_at__gt=Now()).exists()

    def test_the_cause_counts_when_the_handler_wraps_it(self):
        error = LookupError()
        error.__cause__ = self.trouble()
        writing_then(error)
        assert deliver(make()).disposition is Disposition.RETRY

    def test_what_the_handler_asks_for_counts_more_than_its_reason(self):
        error = Reject("no use")
        error.__cause__ = self.trouble()
        writing_then(error)
        assert deliver(make()).result is Result.DEAD

    def test_a_missing_table_is_the_handlers_fault(self):
        def ask(_message):
            with connection.cursor() as cursor:
                cursor.execute("SELECT * FROM no_such_table")

        register(ask)
        assert deliver(make()).result is Result.PARKED


class TestUnreadable:
    @pytest.mark.parametrize(
        "change",
        [
            {"body": b"{"},
            {"body": b"\xff"},
            {"body": b"[" * 100_000},
            {"body": b"1e999"},
            {"body": b'{"a":' * 400 + b"1" + b"}" * 400},
            {"key": "\0"},
            {"key": "\ud800"},
            {"key": "k" * 256},
            {"source": "s" * 256},
            {"topic": "t" * 250},
            {"headers": {"a\0": "b"}},
            {"headers": {"a": "\0"}},
            {"time": dt.datetime(1, 1, 1, tzinfo=dt.timezone(timedelta(hours=14)))},
        ],
        ids=str,
    )
    def test_it_is_kept_as_evidence_and_never_run(self, change):
        register(write)
        message = make(**change)
        headers = {
            "ce-id": str(message.id),
            "ce-type": message.topic,
            "ce-source": message.source,
            "ce-time": message.time.isoformat(),
            "ce-partitionkey": message.key,
            **message.headers,
        }
        outcome = Processor().handle(Delivery(GROUP, headers, message.body))
        if outcome.result is Result.PROCESSED:
            assert change["body"].startswith(b'{"a"')  # deep, but not too deep for this Python
            return
        assert (outcome.disposition, outcome.result) == (Disposition.ACK, Result.UNREADABLE)
        assert not Mail.objects.exists()
        assert not InboxMessage.objects.exists()
        kept = InboxQuarantine.objects.get()
        assert kept.reason == Reason.UNREADABLE
        assert kept.body_size == len(message.body)
        assert kept.detail

    def test_no_headers_at_all(self):
        outcome = Processor().handle(Delivery(GROUP, {}, b"hello\0"))
        assert outcome.result is Result.UNREADABLE
        kept = InboxQuarantine.objects.get()
        assert (kept.message_id, kept.topic, bytes(kept.body)) == (None, "", b"hello\0")
        assert "'id' is missing" in kept.detail

    def test_a_body_too_large_is_cut(self):
        with override_inbox(MAX_BODY=100_000):
            outcome = deliver(message := make(b"1" * 100_001), GROUP)
        assert outcome.result is Result.UNREADABLE
        kept = InboxQuarantine.objects.get()
        assert (len(kept.body), kept.body_size) == (64 * 1024, 100_001)
        assert kept.message_id == message.id

    def test_headers_of_any_size_are_cut(self):
        headers = {f"h{n}": "v" * 5000 for n in range(1000)}
        Processor().handle(Delivery(GROUP, headers, b""))
        kept = InboxQuarantine.objects.get()
        assert len(kept.headers) == 100
        assert all(len(value) == 1000 for value in kept.headers.values())

    def test_bytes_of_another_type_are_no_json_and_fine(self):
        register(write)
        outcome = deliver(make(b"\xff\0", content_type="application/octet-stream"))
        assert outcome.result is Result.PROCESSED


class TestDue:
    def test_a_parked_message_is_run_when_it_is_due(self):
        writing_then(Retry(after=timedelta(hours=1)))
        message = make()
        deliver(message)
        with handlers():
            register(write)
            assert Processor().run_due(GROUP, limit=9) == []
            InboxMessage.objects.update(next_attempt_at=Now())
            assert [o.result for o in Processor().run_due(GROUP, limit=9)] == [Result.PROCESSED]
            assert Processor().run_due(GROUP, limit=9) == []
        taken = row(message)
        assert (taken.state, taken.attempts) == (State.PROCESSED, 2)
        assert (taken.body, taken.next_attempt_at) == (None, None)
        assert Mail.objects.count() == 1

    def test_it_runs_max_attempts_times_and_is_dead(self):
        writing_then(Retry("again", after=timedelta(0)))
        message = make()
        with override_inbox(MAX_ATTEMPTS=4):
            results = [deliver(message).result]
            while row(message).state == State.PARKED:
                InboxMessage.objects.update(next_attempt_at=Now())
                results += [outcome.result for outcome in Processor().run_due(GROUP, limit=1)]
        assert results == [Result.PARKED, Result.PARKED, Result.PARKED, Result.DEAD]
        assert (row(message).state, row(message).attempts) == (State.DEAD, 4)
        assert not Mail.objects.exists()

    def test_limit_and_group(self):
        writing_then(Retry(after=timedelta(0)))
        register(write, group="other")
        for _ in range(3):
            deliver(make(), GROUP)
        InboxMessage.objects.update(next_attempt_at=Now())
        assert len(Processor().run_due(GROUP, limit=2)) == 2
        assert Processor().run_due("other", limit=2) == []

    def test_a_run_that_ends_the_process_leaves_its_attempt_and_a_lease(self):
        register(lambda _: (_ for _ in ()).throw(Retry(after=timedelta(0))))
        message = make()
        deliver(message)
        InboxMessage.objects.update(next_attempt_at=Now())
        runs = []

        def end(message):
            runs.append(message)
            raise SystemExit

        with handlers(), override_inbox(MAX_ATTEMPTS=3):
            register(end)
            for attempt in (2, 3):
                with pytest.raises(SystemExit):
                    Processor().run_due(GROUP, limit=1)
                parked = row(message)
                assert (parked.state, parked.attempts) == (State.PARKED, attempt)
                assert InboxMessage.objects.filter(next_attempt_at__gt=Now()).exists()
                InboxMessage.objects.update(next_attempt_at=Now())
            (outcome,) = Processor().run_due(GROUP, limit=9)
        assert outcome.result is Result.DEAD
        assert (row(message).state, row(message).attempts) == (State.DEAD, 3)
        assert len(runs) == 2

    def test_no_handler_any_more(self):
        writing_then(Retry(after=timedelta(0)))
        message = make()
        deliver(message)
        InboxMessage.objects.update(next_attempt_at=Now())
        with handlers():
            (outcome,) = Processor().run_due(GROUP, limit=9)
        assert outcome.result is Result.DEAD
        assert row(message).error_class == "HandlerNotFound"
