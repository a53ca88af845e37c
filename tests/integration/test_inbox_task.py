"""`@inbox_task`: what a Celery task brings to the inbox, and what it tells its broker."""

from __future__ import annotations

import datetime as dt
import uuid
from datetime import timedelta

import pytest
from celery import Celery, _state
from celery.exceptions import Reject as CeleryReject
from celery.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import DataError, OperationalError, transaction
from django.db.models.functions import Now

from demo_app.models import Mail
from inbox import Reject, Retry, handler
from inbox.celery import _thread, inbox_task
from inbox.delivery import Disposition, Outcome, Result
from inbox.exceptions import HandlerExists, HandlerNotFound
from inbox.models import InboxMessage, InboxQuarantine, Reason, State
from inbox.processing import Processor
from inbox.tasks import BEAT_SCHEDULE, run_due
from inbox.testing import deliver, handlers, override_inbox
from inbox.worker import Worker
from outbox.wire import EncodeError, Message

pytestmark = pytest.mark.django_db

GROUP = "mailer"


@pytest.fixture(autouse=True)
def _no_handlers():
    with handlers():
        yield


@pytest.fixture
def app():
    """A Celery app that runs its tasks at once, as projects do it in their tests."""
    with Celery(
        broker="memory://",
        set_as_current=False,
        task_always_eager=True,
        task_eager_propagates=True,
    ) as app:
        before = _state._tls.current_app
        app.set_current()
        yield app
        _state._set_current_app(before)


def write(message):
    Mail.objects.create(invoice="1", message_id=message.id, subject=str(message.payload))


def task_of(app, function, **options):
    """An inbox task of this app: shared ones live as long as their process."""
    topic = options.pop("topic", None)
    name = options.pop("name", f"shop.{uuid.uuid4().hex}")
    return inbox_task(topic, group=GROUP, name=name, **options)(function)


def failing_with(error):
    def fail(message):
        write(message)
        raise error

    return fail


def make(topic="orders.placed", **fields):
    known = {
        "id": uuid.uuid4(),
        "topic": topic,
        "body": b'{"order":7}',
        "source": "/shop",
        "time": dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC),
        "key": "42",
        "headers": {"task": "not Celery's", "id": "x", "traceparent": "00-1"},
    }
    return Message(**{**known, **fields})


def row():
    return InboxMessage.objects.get()


class TestEagerly:
    """In Django's TestCase, with task_always_eager."""

    def test_the_argument_is_the_payload_and_the_task_id_the_id(self, app):
        seen = []
        task = task_of(app, seen.append)
        result = task.delay({"order": 7, "at": dt.date(2026, 1, 31)})
        (message,) = seen
        assert result.result == "processed"
        assert str(message.id) == result.id
        assert message.topic == task.name
        assert message.payload == {"order": 7, "at": "2026-01-31"}
        assert row().group_name == GROUP

    def test_the_same_task_id_takes_effect_once(self, app):
        task = task_of(app, write)
        task_id = str(uuid.uuid4())
        results = [task.apply_async([7], task_id=task_id).result for _ in range(3)]
        assert results == ["processed", "duplicate", "duplicate"]
        assert Mail.objects.count() == 1

    def test_the_same_task_id_with_another_payload_is_quarantined(self, app):
        task = task_of(app, write)
        task_id = str(uuid.uuid4())
        assert task.apply_async([7], task_id=task_id).result == "processed"
        assert task.apply_async([8], task_id=task_id).result == "quarantined"
        assert InboxQuarantine.objects.get().reason == Reason.CONFLICT
        assert Mail.objects.get().subject == "7"

    def test_a_whole_message_arrives_as_it_is(self, app):
        seen = []
        task = task_of(app, seen.append, topic="orders.placed")
        message = make()
        assert task.deliver(message).id == str(message.id)
        task.deliver(message)
        assert seen == [message]

    def test_a_whole_message_of_bytes_arrives_as_it_is(self, app):
        seen = []
        message = make(body=b"\x00\xff\xfe", content_type="application/x-own")
        task_of(app, seen.append, topic="orders.placed").deliver(message)
        assert seen == [message]

    def test_a_message_of_another_topic_is_refused(self, app):
        task = task_of(app, write, topic="orders.placed")
        with pytest.raises(ValueError, match=r"handles topic 'orders\.placed', not 'orders\.gone'"):
            task.deliver(make(topic="orders.gone"))

    def test_a_coroutine_runs(self, app):
        async def write_later(message):
            await Mail.objects.acreate(invoice="1", message_id=message.id, subject="async")

        task_of(app, write_later).delay(1)
        assert Mail.objects.get().subject == "async"

    def test_what_the_function_raises_is_recorded_and_raised(self, app):
        task = task_of(app, failing_with(LookupError("no such order")))
        with pytest.raises(LookupError, match="no such order"):
            task.delay(1)
        assert not Mail.objects.exists()
        assert (row().state, row().error_class) == (State.PARKED, "LookupError")

    def test_without_propagation_celery_keeps_what_was_raised(self, app):
        app.conf.task_eager_propagates = False
        result = task_of(app, failing_with(LookupError("gone"))).delay(1)
        assert result.failed()
        assert isinstance(result.result, LookupError)

    def test_retry_and_reject_are_obeyed(self, app):
        with pytest.raises(Retry):
            task_of(app, failing_with(Retry("busy", after=timedelta(hours=2)))).delay(1)
        due = InboxMessage.objects.filter(next_attempt_at__gt=Now() + timedelta(hours=1))
        assert due.get().state == State.PARKED
        with pytest.raises(Reject):
            task_of(app, failing_with(Reject("no such customer"))).delay(1)
        assert InboxMessage.objects.get(state=State.DEAD).error == "no such customer"

    def test_celerys_own_retry_is_refused_with_the_way_to_go(self, app):
        def ask_celery(message):
            task.retry(countdown=3)

        task = task_of(app, ask_celery)
        with pytest.raises(RuntimeError, match=r"Raise inbox\.Retry"):
            task.delay(1)

    def test_called_directly_it_is_the_function(self, app):
        def answer(message):
            return message.payload

        assert task_of(app, answer)(make()) == {"order": 7}
        assert not InboxMessage.objects.exists()

    def test_the_test_kit_delivers_to_it(self, app):
        task = task_of(app, write)
        outcome = deliver(make(topic=task.topic))
        assert outcome.result is Result.PROCESSED
        assert Mail.objects.count() == 1

    def test_after_a_commit(self, app, django_capture_on_commit_callbacks):
        task = task_of(app, write)
        with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
            task.delay_on_commit(1)
            assert not Mail.objects.exists()
        assert Mail.objects.count() == 1

    def test_it_refuses_to_run_inside_a_transaction_of_yours(self, app):
        task = task_of(app, write)
        with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
            task.delay(1)
        assert not InboxMessage.objects.exists()


class TestInAWorker:
    """The body as the worker calls it; tests/acceptance/test_celery.py has real ones."""

    @pytest.fixture(autouse=True)
    def pauses(self, monkeypatch):
        pauses = []
        monkeypatch.setattr("inbox.celery.time.sleep", pauses.append)
        monkeypatch.setattr(_thread, "refused", 0)
        return pauses

    def receive(self, task, *args, **request):
        known = {"id": str(uuid.uuid4()), "origin": "gen7@web-3", "called_directly": False}
        task.push_request(**{**known, **request})
        try:
            return task.run(*args)
        finally:
            task.pop_request()

    def test_answers_with_the_result_and_names_the_sender(self, app):
        task = task_of(app, write)
        task_id = str(uuid.uuid4())
        for result in ("processed", "duplicate"):
            assert self.receive(task, {"order": 7}, id=task_id) == result
        assert (row().source, row().topic) == ("celery:gen7@web-3", task.name)

    def test_a_failure_is_recorded_and_the_task_succeeds(self, app):
        assert self.receive(task_of(app, failing_with(LookupError("gone"))), 1) == "parked"
        assert self.receive(task_of(app, failing_with(Reject("never"))), 1) == "dead"

    def test_a_soft_time_limit_in_the_function_is_its_failure(self, app):
        assert self.receive(task_of(app, failing_with(SoftTimeLimitExceeded())), 1) == "parked"
        assert row().error_class == "SoftTimeLimitExceeded"

    @pytest.mark.parametrize(
        "repeat", [{"delivery_info": {"redelivered": True}}, {"retries": 1}], ids=str
    )
    def test_the_attempt_of_a_repeat_is_counted_before_it_runs(self, app, repeat):
        def end_the_process(message):
            raise SystemExit

        task, task_id = task_of(app, end_the_process), str(uuid.uuid4())
        with override_inbox(MAX_ATTEMPTS=2):
            for attempts in (1, 2):
                with pytest.raises(SystemExit):
                    self.receive(task, 1, id=task_id, **repeat)
                assert (row().state, row().attempts) == (State.RECEIVED, attempts)
            assert self.receive(task, 1, id=task_id, **repeat) == "dead"
        assert row().error_class == "HandlerEndedProcess"

    def test_a_first_arrival_leaves_nothing_until_it_commits(self, app):
        def end_the_process(message):
            raise SystemExit

        with pytest.raises(SystemExit):
            self.receive(task_of(app, end_the_process), 1)
        assert not InboxMessage.objects.exists()

    @pytest.mark.parametrize(
        "trouble", [OperationalError("away"), SoftTimeLimitExceeded(), ImproperlyConfigured("x")]
    )
    def test_what_is_not_recorded_goes_back_after_a_growing_pause(
        self, app, monkeypatch, pauses, caplog, trouble
    ):
        def raise_trouble(*_args, **_kwargs):
            raise trouble

        task = task_of(app, write)
        with monkeypatch.context() as patch:
            patch.setattr("inbox.processing.read", raise_trouble)
            for _ in range(12):
                with pytest.raises(CeleryReject) as rejected:
                    self.receive(task, 1)
                assert rejected.value.requeue is True
        assert len(pauses) == 12
        assert all(0 <= pause <= 5 for pause in pauses)
        assert max(pauses) > 0.2
        assert len(caplog.records) == 1
        assert self.receive(task, 1) == "processed"
        assert _thread.refused == 0

    def test_a_soft_time_limit_in_the_pause_loses_nothing(self, app, monkeypatch):
        def raise_limit(*_args):
            raise SoftTimeLimitExceeded

        monkeypatch.setattr("inbox.celery.time.sleep", raise_limit)
        monkeypatch.setattr("inbox.processing.read", raise_limit)
        with pytest.raises(CeleryReject) as rejected:
            self.receive(task_of(app, write), 1)
        assert rejected.value.requeue is True

    def test_what_the_database_refuses_is_left_to_the_dead_letter_queue(self, app, monkeypatch):
        def refuse(*_args, **_kwargs):
            raise DataError("value too long")

        monkeypatch.setattr("inbox.processing.read", refuse)
        with pytest.raises(CeleryReject, match="value too long") as rejected:
            self.receive(task_of(app, write), 1)
        assert rejected.value.requeue is False

    @pytest.mark.parametrize(
        ("args", "request_", "why"),
        [
            ((), {}, "takes one argument, its payload"),
            ((1, 2), {}, "takes one argument, its payload"),
            (({1, 2},), {}, "cannot be written as JSON"),
            ((1,), {"id": "order-7"}, "must be a UUID, not 'order-7'"),
            ((1,), {"headers": {"inbox-message": {}}}, "the argument is the body, as bytes"),
            ((b"1",), {"headers": {"inbox-message": {}}}, "attribute 'id' is missing"),
            ((b"1",), {"headers": {"inbox-message": 7}}, "no table of a message's headers"),
        ],
    )
    def test_what_is_no_message_is_kept_as_evidence(self, app, args, request_, why):
        assert self.receive(task_of(app, write), *args, **request_) == "unreadable"
        kept = InboxQuarantine.objects.get()
        assert (kept.group_name, kept.reason) == (GROUP, Reason.UNREADABLE)
        assert why in kept.detail
        assert bytes(kept.body)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"acks_late": False}, "a worker that is killed would lose the message"),
            ({"reject_on_worker_lost": False}, "a pool process that is killed"),
            ({"reject_on_worker_lost": None}, "a pool process that is killed"),
            ({"acks_on_timeout": True}, "hard time limit"),
            ({"acks_on_failure_or_timeout": True}, "could not be recorded"),
            ({"retry_on_worker_lost": True}, "does not say that it is a repeat"),
            ({"serializer": "pickle"}, "pickle runs code"),
            ({"track_started": True}, "result backend"),
            ({"bind": True}, "the function takes the message alone"),
            ({"autoretry_for": (OSError,)}, r"INBOX\['MAX_ATTEMPTS'\]"),
            ({"max_retries": 3}, r"INBOX\['MAX_ATTEMPTS'\]"),
            ({"base": object}, "its own base class"),
        ],
    )
    def test_what_would_break_the_guarantee_is_refused(self, options, why):
        with pytest.raises(ValueError, match=why):
            inbox_task(group=GROUP, **options)

    def test_the_same_value_may_be_said(self, app):
        task = task_of(app, write, acks_late=True, reject_on_worker_lost=True, rate_limit="5/m")
        assert (task.acks_late, task.reject_on_worker_lost, task.rate_limit) == (True, True, "5/m")

    def test_settings_and_annotations_do_not_switch_it_off(self, app, caplog):
        app.conf.update(
            task_acks_late=False,
            task_acks_on_timeout=True,
            task_track_started=True,
            task_serializer="pickle",
            task_annotations={"*": {"acks_late": False, "serializer": "pickle", "priority": 3}},
        )
        task = task_of(app, write)
        assert (task.acks_late, task.acks_on_timeout, task.track_started) == (True, False, False)
        assert (task.serializer, task.priority) == ("json", 3)
        assert "acks_late=False of task_annotations is not obeyed" in caplog.text

    def test_functions_that_do_nothing_when_called_are_refused(self):
        def generate(message):
            yield message

        with pytest.raises(TypeError, match="is a generator"):
            inbox_task(group=GROUP)(generate)

    def test_a_task_takes_one_topic(self, app):
        with pytest.raises(TypeError, match="write one task for a topic"):
            inbox_task("other", group=GROUP)(task_of(app, write))

    @pytest.mark.parametrize(
        ("args", "kwargs"), [((), {}), ((1, 2), {}), ((), {"order": 7}), ((1,), {"payload": 2})]
    )
    def test_other_than_one_argument_is_refused_at_the_call(self, app, args, kwargs):
        with pytest.raises(TypeError, match="takes one argument, its payload"):
            task_of(app, write).delay(*args, **kwargs)

    def test_what_cannot_be_a_message_is_refused_at_the_call(self, app):
        task = task_of(app, write)
        with pytest.raises(EncodeError):
            task.delay({"nan": float("nan")})
        with pytest.raises(ValueError, match="must be a UUID, not 'order-7'"):
            task.apply_async([7], task_id="order-7")
        for send in (lambda **o: task.apply_async([7], **o), lambda **o: task.deliver(make(), **o)):
            with pytest.raises(ValueError, match="pickle runs code"):
                send(serializer="pickle")
        assert task.delay(payload=7).result == "processed"


class TestGroups:
    def test_a_group_is_fed_by_a_broker_or_by_celery(self, app):
        task_of(app, write)
        with pytest.raises(
            HandlerExists, match=r"fed either by a broker or by Celery.*@inbox_task"
        ):
            handler("orders.placed", group=GROUP)(write)
        handler("orders.placed", group="warehouse")(write)
        with pytest.raises(HandlerExists, match="another group"):
            inbox_task(group="warehouse")(write)

    def test_a_second_task_for_a_topic_is_refused(self, app):
        task_of(app, write, topic="orders.placed")
        with pytest.raises(HandlerExists, match="needs a group of its own"):
            task_of(app, write, topic="orders.placed")

    def test_its_queue_is_celerys_so_names_may_meet(self, app):
        handler("b.c", group="a")(write)
        inbox_task("c", group="a.b", name="shop.c")(write)

    def test_no_queue_is_consumed_for_it(self, app, capsys):
        task_of(app, write)
        with pytest.raises(HandlerNotFound, match=r"fed by Celery.*inbox\.tasks\.run_due"):
            Worker(GROUP)
        with pytest.raises(CommandError, match="fed by Celery"):
            call_command("inbox_consume", "--once", "--group", GROUP)
        with pytest.raises(CommandError, match="fed by Celery"):
            call_command("inbox_consume", "--once")

    @pytest.mark.django_db(transaction=True)
    def test_consumers_of_all_groups_leave_it_out(self, app, capsys):
        task_of(app, write)
        handler("orders.placed", group="warehouse")(write)
        call_command("inbox_consume", "--once")
        assert capsys.readouterr().out.startswith("inbox_consume ready")


class TestRunDue:
    def park(self, app, function=None, count=1):
        broken = [True]

        def fail_once(message):
            if broken:
                raise LookupError
            (function or write)(message)

        app.conf.task_eager_propagates = False
        task = task_of(app, fail_once)
        for number in range(count):
            task.delay(number)
        broken.clear()
        InboxMessage.objects.update(next_attempt_at=Now())
        return task

    def test_runs_what_is_due(self, app):
        self.park(app, count=3)
        task_of(app, failing_with(Retry(after=timedelta(hours=1)))).delay(1)
        assert run_due() == {GROUP: {"processed": 3}}
        assert run_due() == {GROUP: {}}
        assert Mail.objects.count() == 3

    def test_groups_of_consumers_are_theirs_unless_named(self):
        handler("orders.placed", group="warehouse")(failing_with(LookupError()))
        deliver(make(), "warehouse")
        InboxMessage.objects.update(next_attempt_at=Now())
        assert run_due() == {}
        assert run_due(group="warehouse") == {"warehouse": {"parked": 1}}

    def test_an_unknown_group_is_refused_and_not_made_dead(self, app):
        self.park(app)
        with handlers(), pytest.raises(HandlerNotFound, match="import the module"):
            run_due(group=GROUP)
        assert row().state == State.PARKED

    def test_is_bounded(self, app):
        self.park(app, count=3)
        assert run_due(seconds=0) == {GROUP: {}}
        assert InboxMessage.objects.filter(state=State.PARKED).count() == 3

    def test_ends_while_the_database_takes_nothing(self, app, monkeypatch):
        self.park(app)
        refused = Outcome(Disposition.RETRY, Result.UNRECORDED, OperationalError())
        monkeypatch.setattr(Processor, "run_due", lambda *_, **__: [refused])
        assert run_due() == {GROUP: {"unrecorded": 1}}

    def test_beat_sends_it_and_no_clock_decides_whether_it_runs(self):
        with Celery(broker="memory://", set_as_current=False) as app:
            (entry,) = BEAT_SCHEDULE.values()
            assert entry["task"] == run_due.name
            app.send_task(entry["task"], **entry["options"])
            with (
                app.connection_for_read() as connection,
                connection.SimpleQueue("celery") as tasks,
            ):
                message = tasks.get(timeout=5)
                message.ack()
        assert message.headers["expires"] is None
        assert message.properties["expiration"] == str(int(entry["schedule"] * 1000))
