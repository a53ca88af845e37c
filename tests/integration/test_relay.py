import logging
import threading
import time
import uuid
from dataclasses import replace
from datetime import timedelta
from zlib import crc32

import psycopg
import pytest
from django.db import connection, connections, transaction

from outbox import Draft, publish_many
from outbox.brokers.base import Status
from outbox.exceptions import BrokerMisconfigured, BrokerUnavailable
from outbox.models import OutboxLane, OutboxTodo, TodoState
from outbox.relay import DrainReport, Relay
from outbox.store import stores
from outbox.store.lanes import Lanes
from outbox.testing import captured_messages
from tests.outbox_support import (
    SILENT,
    VENDORS,
    ScriptedPublisher,
    environment,
    expire_leases,
    finish,
    make_due,
    start,
)

DATABASES = ["default", "sqlite"]
pytestmark = pytest.mark.django_db(databases=DATABASES)
real_commits = pytest.mark.django_db(transaction=True, databases=DATABASES)


@pytest.fixture(autouse=True)
def _quick(settings):
    settings.OUTBOX = settings.OUTBOX | {
        "CONFIRM_TIMEOUT": timedelta(seconds=0.1),
        "LANES": 1,
        "BACKOFF": {"BASE": timedelta(hours=1), "MAX": timedelta(hours=1)},
    }


@pytest.fixture
def tune(settings):
    def change(**changes):
        settings.OUTBOX = settings.OUTBOX | changes

    return change


def send(*drafts, using="default"):
    """Publish (topic, key) pairs in one transaction."""
    with transaction.atomic(using=using):
        return publish_many([Draft(topic, None, key=key) for topic, key in drafts], using=using)


def relay(publisher, using="default"):
    return Relay("default", using, publisher)


def states(using="default"):
    """Topic → state of what is not done."""
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT topic, state FROM outbox_todo JOIN outbox_message USING (seq) ORDER BY seq"
        )
        return {topic: TodoState(state).name for topic, state in cursor.fetchall()}


def free_lanes(using="default"):
    newest = {row.lane: row for row in OutboxLane.objects.using(using).order_by("seq")}
    return all(row.lease_until <= row.at for row in newest.values())


def answers(**by_topic):
    return lambda message: by_topic.get(message.topic, Status.ACKED)


class TestAnswers:
    @pytest.mark.parametrize("using", VENDORS)
    def test_acked(self, using):
        sent = send(("a", ""), ("b", "k"), ("c", "k"), using=using)
        publisher = ScriptedPublisher()
        report = relay(publisher, using).drain()
        assert publisher.submitted == sent
        assert (report.claimed, report.published, report.outage) == (3, 3, "")
        assert states(using) == {}
        assert free_lanes(using)

    def test_nothing_to_do_takes_no_lane_and_opens_no_connection(self):
        publisher = ScriptedPublisher()
        report = relay(publisher).drain()
        assert (report.claimed, publisher.opened) == (0, 0)
        assert not OutboxLane.objects.exists()

    @pytest.mark.parametrize("status", [Status.NACKED, Status.RETURNED])
    @pytest.mark.parametrize("using", VENDORS)
    def test_refused(self, status, using):
        send(("a", ""), ("bad", "k"), ("c", "k"), ("d", "x"), using=using)
        publisher = ScriptedPublisher(answers(bad=status))
        report = relay(publisher, using).drain()
        assert publisher.topics == ["a", "bad", "d"]
        assert (report.published, report.retried, report.parked, report.outage) == (2, 1, 1, "")
        assert states(using) == {"bad": "RETRY", "c": "PARKED"}
        row = OutboxTodo.objects.using(using).get(state=TodoState.RETRY)
        assert (row.attempts, row.error_class) == (1, status.value)
        assert row.error == f"scripted {status.value}"
        assert free_lanes(using)

    def test_unknown_is_released_and_ends_the_drain_as_an_outage(self):
        send(("a", ""), ("odd", "k"), ("c", "k"), ("d", "x"))
        publisher = ScriptedPublisher(answers(odd=Status.UNKNOWN))
        report = relay(publisher).drain()
        assert (report.published, report.released, report.retried) == (2, 2, 0)
        assert "scripted unknown" in report.outage
        assert states() == {"odd": "NEW", "c": "NEW"}
        assert not OutboxTodo.objects.filter(attempts__gt=0).exists()
        assert free_lanes()
        assert not publisher.is_open

    def test_an_unknown_in_one_lane_does_not_starve_the_others(self, tune):
        tune(LANES=8)
        sent = send(*[("fine", str(n)) for n in range(40)], ("odd", "stuck"))
        publisher = ScriptedPublisher(answers(odd=Status.UNKNOWN))
        for _ in range(200):
            one = relay(publisher)  # a new one has no pause behind it
            one.drain()
            if OutboxTodo.objects.count() == 1:
                break
        assert states() == {"odd": "NEW"}
        assert publisher.topics.count("fine") == len(sent) - 1

    def test_the_address_of_the_route(self, tune):
        address = {"exchange": "events"}
        route = {"BROKER": "default", "ADDRESS": address}
        tune(ROUTES=[("orders.*", route), ("*", "default")])
        send(("orders.placed", ""), ("mail.sent", ""))
        publisher = ScriptedPublisher()
        relay(publisher).drain()
        assert publisher.addresses == [address, {}]

    def test_a_route_that_is_gone_is_no_fault_of_the_message(self, tune):
        send(("a", ""), ("b", ""))
        tune(ROUTES=[("a", "default")])
        publisher = ScriptedPublisher()
        report = relay(publisher).drain()
        assert (report.published, publisher.addresses) == (2, [{}, {}])
        assert publisher.opened == 1

    def test_a_route_that_now_names_another_broker(self, tune):
        send(("a", ""))
        other = {"BROKER": "other", "ADDRESS": {"topic": "x"}}
        backends = {"default": {"BACKEND": "a.B"}, "other": {"BACKEND": "a.B"}}
        tune(BROKERS=backends, ROUTES=[("*", other)])
        publisher = ScriptedPublisher()
        assert relay(publisher).drain().published == 1
        assert publisher.addresses == [{}]


class TestOutage:
    """A broker that is down is not the message's fault (G11)."""

    def check_untouched(self):
        assert OutboxTodo.objects.filter(state=TodoState.NEW, attempts=0).count() == 2
        assert free_lanes()

    def test_at_open(self):
        send(("a", ""), ("b", "k"))
        publisher = ScriptedPublisher()
        publisher.open_error = BrokerUnavailable("connection refused")
        report = relay(publisher).drain()
        assert report.outage == "BrokerUnavailable: connection refused"
        assert (report.claimed, publisher.submitted) == (0, [])
        assert not OutboxLane.objects.exists()
        self.check_untouched()

    def test_at_open_for_a_reason_that_a_person_must_see(self):
        send(("a", ""), ("b", "k"))
        publisher = ScriptedPublisher()
        publisher.open_error = BrokerMisconfigured("wrong password")
        assert relay(publisher).drain().outage == "BrokerMisconfigured: wrong password"
        self.check_untouched()

    def test_at_submit(self):
        send(("a", ""), ("b", "k"))
        publisher = ScriptedPublisher(answers(b=BrokerUnavailable("reset")))
        report = relay(publisher).drain()
        assert report.outage == "BrokerUnavailable: reset"
        assert (report.published, report.released) == (0, 2)
        self.check_untouched()

    def test_at_confirms(self):
        send(("a", ""), ("b", "k"))
        publisher = ScriptedPublisher()
        publisher.confirms_error = BrokerUnavailable("closed by peer")
        report = relay(publisher).drain()
        assert report.outage == "BrokerUnavailable: closed by peer"
        assert not publisher.is_open
        self.check_untouched()

    def test_what_was_confirmed_before_it_is_recorded(self, tune):
        send(("a", "k"), ("b", "k"), ("c", "k"))
        publisher = ScriptedPublisher(answers(c=BrokerUnavailable("reset")))
        report = relay(publisher).drain()
        assert (report.published, report.released) == (2, 1)
        assert states() == {"c": "NEW"}

    def test_silence(self):
        send(("a", ""), ("b", "k"))
        publisher = ScriptedPublisher(answers(b=SILENT))
        began = time.monotonic()
        report = relay(publisher).drain()
        assert 0.1 <= time.monotonic() - began < 2
        assert "did not answer within CONFIRM_TIMEOUT (0:00:00.100000)" in report.outage
        assert (report.published, report.released) == (1, 1)
        assert states() == {"b": "NEW"}
        assert not publisher.is_open
        assert free_lanes()

    def test_silence_with_heartbeats(self):
        """A driver that comes back early without an answer does not start the wait again."""
        send(("a", ""))
        publisher = ScriptedPublisher(answers(a=SILENT))
        publisher.patience = 0.01
        began = time.monotonic()
        report = relay(publisher).drain()
        assert time.monotonic() - began < 2
        assert "CONFIRM_TIMEOUT" in report.outage

    def test_the_next_drains_pause_and_then_go_on(self):
        send(("a", ""))
        publisher = ScriptedPublisher()
        publisher.open_error = BrokerUnavailable("connection refused")
        one = relay(publisher)
        one.drain()
        one._pacing._paused_until = time.monotonic() + 60
        publisher.open_error = None
        assert one.drain().outage == "paused after an outage"
        one._pacing._paused_until = 0
        assert one.drain().published == 1

    def test_one_log_line_a_change_of_state(self, caplog):
        caplog.set_level(logging.INFO, "outbox.relay")
        send(("a", ""))
        publisher = ScriptedPublisher()
        one = relay(publisher)
        for error in [BrokerUnavailable("refused")] * 5 + [None] * 3 + [BrokerUnavailable()] * 2:
            publisher.open_error = error
            one._pacing._paused_until = 0
            one.drain()
            one._drop()
            send(("a", ""))
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]

    def test_back_again_is_said_while_there_is_work(self, caplog, tune):
        """Not when the backlog that an outage has left is gone, which may be hours later."""
        tune(BATCH_SIZE=1)
        caplog.set_level(logging.INFO, "outbox.relay")
        send(*[("a", "")] * 12)
        publisher = ScriptedPublisher()
        publisher.open_error = BrokerUnavailable("refused")
        one = relay(publisher)
        one.drain()
        publisher.open_error, one._pacing._paused_until = None, 0
        said = []
        publisher.before_confirms = lambda: said.append("working again" in caplog.text)
        one.drain()
        assert said[0] is False
        assert said[-1] is True

    def test_an_idle_connection_that_died_is_no_outage(self):
        publisher = ScriptedPublisher()
        one = relay(publisher)
        send(("a", ""))
        one.drain()

        def die(_timeout):
            del publisher.confirms
            publisher.close()
            raise BrokerUnavailable("closed by peer")

        publisher.confirms = die
        send(("b", ""))
        report = one.drain()
        assert (report.published, report.outage, publisher.opened) == (1, "", 2)


class TestPoison:
    def test_only_that_message_pays(self):
        send(("a", ""), ("bad", "k"), ("c", "k"), ("d", "x"), ("e", ""))
        publisher = ScriptedPublisher(answers(bad=ValueError("cannot be written\ud800")))
        report = relay(publisher).drain()
        assert (report.retried, report.parked, report.published) == (1, 1, 3)
        assert report.outage == ""
        assert states() == {"bad": "RETRY", "c": "PARKED"}
        row = OutboxTodo.objects.get(state=TodoState.RETRY)
        assert (row.attempts, row.error_class) == (1, "ValueError")
        assert row.error == r"cannot be written\ud800"
        assert set(OutboxTodo.objects.values_list("attempts", flat=True)) == {0, 1}

    def test_the_connection_is_not_used_again(self):
        """Half of it may have been written."""
        send(("bad", ""), ("b", ""))
        publisher = ScriptedPublisher(answers(bad=ValueError("no")))
        relay(publisher).drain()
        assert publisher.opened == 2

    def test_what_is_neither_ends_the_drain_and_the_connection(self):
        """A time limit of the process, say: what is in flight may not be sent again over it."""
        send(("a", ""), ("b", ""))
        publisher = ScriptedPublisher()
        publisher.confirms_error = SystemError("time limit")
        one = relay(publisher)
        with pytest.raises(SystemError):
            one.drain()
        assert not publisher.is_open
        publisher.confirms_error = None
        expire_leases()
        assert one.drain().published == 2

    def test_one_that_makes_the_broker_break_off_is_found(self, tune):
        """The broker closes the connection and does not say for which message. Meanwhile other
        lanes do well, which says nothing about this one."""
        tune(MAX_ATTEMPTS=1, LANES=8)
        keys = [str(n) for n in range(400)]
        mates = [key for key in keys if crc32(key.encode()) % 8 == crc32(b"bad") % 8]
        send(*[("fine", key) for key in mates[:13]], ("bad", "bad"))
        send(*[("fine", key) for key in mates[13:20]])
        publisher = ScriptedPublisher()

        def break_off():
            if "bad" in [message.topic for message in publisher.on_this_connection]:
                raise BrokerMisconfigured("PRECONDITION_FAILED")

        publisher.before_confirms = break_off
        one = relay(publisher)
        send(*[("fine", key) for key in keys if key not in mates])
        assert one.drain().outage == "", "its neighbours do not wait for a pause"
        assert states() == {"bad": "DEAD"}
        assert publisher.opened <= 7, "half of the suspects each time, then the culprit alone"
        row = OutboxTodo.objects.get()
        assert (row.error_class, row.error) == ("BrokerMisconfigured", "PRECONDITION_FAILED")

    def test_a_broker_that_breaks_off_at_each_of_them_is_left_alone_for_a_while(self):
        send(*[("bad", str(n)) for n in range(100)])
        publisher = ScriptedPublisher()

        def break_off():
            if publisher.on_this_connection:
                raise BrokerMisconfigured("ACCESS_REFUSED")

        publisher.before_confirms = break_off
        one = relay(publisher)
        assert one.drain().outage == "BrokerMisconfigured: ACCESS_REFUSED"
        assert one._pacing.paused() > 0
        assert list(OutboxTodo.objects.filter(attempts__gt=0).values_list("attempts")) == [(1,)]
        assert publisher.opened <= 8

    def test_retry_until_dead(self, tune, caplog):
        tune(MAX_ATTEMPTS=3)
        send(("bad", "k"), ("b", "k"), ("c", "x"))
        publisher = ScriptedPublisher(answers(bad=Status.NACKED))
        one = relay(publisher)
        for attempt in (1, 2, 3):
            report = one.drain()
            assert OutboxTodo.objects.get(attempts=attempt).state == (
                TodoState.DEAD if attempt == 3 else TodoState.RETRY
            )
            assert (report.retried, report.dead) == ((0, 1) if attempt == 3 else (1, 0))
            make_due()
        assert one.drain().claimed == 0
        assert publisher.topics == ["bad", "c", "bad", "bad"]
        assert states() == {"bad": "DEAD", "b": "PARKED"}
        (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
        assert "(bad) is dead after 3 attempts: scripted nacked" in record.getMessage()

    def test_a_dead_one_keeps_its_key(self, tune):
        tune(MAX_ATTEMPTS=1)
        send(("bad", "k"))
        publisher = ScriptedPublisher(answers(bad=Status.RETURNED))
        one = relay(publisher)
        one.drain()
        send(("later", "k"), ("other", "x"))
        one.drain()
        assert publisher.topics == ["bad", "other"]
        assert states() == {"bad": "DEAD", "later": "PARKED"}

    def test_the_order_of_a_key_survives_failures(self, tune):
        """G7"""
        tune(BATCH_SIZE=3)
        sent = [send((f"t{n}", "k"), (f"u{n}", "x"))[0].topic for n in range(6)]
        refusals = {"t0": 2, "t3": 1, "u1": 3}

        def answer(message):
            refusals[message.topic] = refusals.get(message.topic, 0) - 1
            return Status.NACKED if refusals[message.topic] >= 0 else Status.ACKED

        taken = []
        publisher = ScriptedPublisher(
            lambda m: (status := answer(m), status is Status.ACKED and taken.append(m))[0]
        )
        one = relay(publisher)
        for _ in range(8):
            one.drain()
            make_due()
        assert [m.topic for m in taken if m.key == "k"] == sent
        assert [m.topic for m in taken if m.key == "x"] == [f"u{n}" for n in range(6)]
        assert states() == {}


class TestBounds:
    def test_pages(self, tune):
        tune(BATCH_SIZE=2)
        sent = send(*[("a", str(n)) for n in range(45)])
        publisher = ScriptedPublisher()
        report = relay(publisher).drain()
        assert publisher.submitted == sent
        assert (report.claimed, report.published) == (45, 45)
        # A row for each page and one for each time that the lane was taken: it is held in between.
        assert OutboxLane.objects.filter(seq__gt=0).count() == 23 + 3

    def test_once_visits_each_lane_once(self, tune):
        tune(BATCH_SIZE=1)
        send(*[("a", "")] * 25)
        assert relay(ScriptedPublisher()).drain(once=True).published == 10

    def test_no_page_begins_after_the_time_is_up(self, tune):
        tune(BATCH_SIZE=1, LANES=4)
        send(*[("a", "")] * 25)
        publisher = ScriptedPublisher()
        publisher.before_confirms = lambda: time.sleep(0.03)
        report = relay(publisher).drain(seconds=0.02)
        assert report.published == 1
        assert free_lanes()

    def test_no_page_begins_after_a_stop(self, tune):
        tune(BATCH_SIZE=1, LANES=4)
        send(*[("a", "")] * 25)
        stop, publisher = threading.Event(), ScriptedPublisher()
        publisher.before_confirms = stop.set
        report = relay(publisher).drain(stop)
        assert report.published == 1
        assert free_lanes()
        assert relay(publisher).drain(stop).published == 0

    @pytest.mark.parametrize(("linger", "published"), [(0, 1), (0.2, 2)])
    def test_lingers_after_the_last_message(self, linger, published):
        send(("a", ""))
        publisher = ScriptedPublisher()
        one = relay(publisher)
        # A message that comes a moment too late: when the relay has just seen nothing.
        late = [("b", "")]
        one._keep_alive = lambda: publisher.topics and late and send(late.pop())
        report = one.drain(linger=linger)
        assert report.published == published
        assert linger <= report.seconds < 2

    def test_does_not_linger_where_nothing_was(self):
        assert relay(ScriptedPublisher()).drain(linger=60).seconds < 5

    def test_a_stopped_relay_hands_over_nothing_after_its_time(self, tune):
        """Like SIGSTOP in the middle of a page: each hand-over looks at the clock first (L2)."""
        tune(LEASE=timedelta(seconds=1.3))
        send(*[("a", "")] * 10)
        publisher = ScriptedPublisher(
            lambda _: (len(publisher.submitted) == 1 and time.sleep(0.3), Status.ACKED)[1]
        )
        report = relay(publisher).drain(seconds=0.1)
        assert (report.published, report.released) == (2, 8)

    def test_a_slow_read_does_not_use_up_the_time_to_send(self, tune):
        tune(LEASE=timedelta(seconds=1.2))
        send(*[("a", "")] * 3)
        one = relay(ScriptedPublisher())
        claim = one._store.claim
        one._store.claim = lambda *args: (time.sleep(0.45), claim(*args))[1]
        assert one.drain(once=True).published == 3


@real_commits
class TestFence:
    @pytest.mark.parametrize("using", VENDORS)
    def test_the_lane_is_lost_in_the_middle_of_a_window(self, using, caplog):
        """G6"""
        sent = send(("a", ""), ("bad", "k"), ("c", "k"), using=using)
        thief = ScriptedPublisher()
        publisher = ScriptedPublisher(answers(bad=Status.NACKED))

        def steal():
            publisher.before_confirms = lambda: None
            expire_leases(using)
            assert relay(thief, using).drain().published == 3

        publisher.before_confirms = steal
        report = relay(publisher, using).drain()
        assert (report.fenced, report.claimed, report.published, report.retried) == (1, 0, 0, 0)
        assert thief.submitted == sent
        assert states(using) == {}
        lanes = OutboxLane.objects.using(using)
        assert sum(lanes.values_list("published", flat=True)) == 3
        assert sum(lanes.values_list("failed", flat=True)) == 0
        assert "has passed to another relay" in caplog.text

    def test_control_the_same_without_the_fence(self, monkeypatch, caplog):
        """The test above must see what the fence is for."""
        move = Lanes.move

        def unfenced(self, held, lease, *work):
            newest, _epoch, owner, _free = self._newest(held.broker, held.lane)
            return move(self, replace(held, seq=newest, owner=owner), lease, *work)

        monkeypatch.setattr(Lanes, "move", unfenced)
        with pytest.raises(AssertionError, match="assert"):
            self.test_the_lane_is_lost_in_the_middle_of_a_window("default", caplog)
        assert sum(OutboxLane.objects.values_list("published", flat=True)) == 4

    def test_lost_together_with_the_broker(self):
        """The connection in doubt is not used again, although no outage is reported."""
        send(("a", ""))
        publisher = ScriptedPublisher(answers(a=SILENT))
        one = relay(publisher)

        def steal():
            expire_leases()
            assert stores["default"].acquire("default", 0, 1, one._owner, timedelta(hours=1))

        publisher.before_confirms = steal
        assert one.drain().fenced == 1
        assert not publisher.is_open


@real_commits
class TestNoTransaction:
    """No database transaction is open while the network is used."""

    @pytest.mark.parametrize("using", VENDORS)
    def test_not_in_this_process(self, using):
        send(("a", ""), ("b", "k"), ("c", "k"), using=using)
        seen = []
        publisher = ScriptedPublisher(
            lambda _: (seen.append(connections[using].in_atomic_block), Status.ACKED)[1]
        )
        publisher.before_confirms = lambda: seen.append(connections[using].in_atomic_block)
        relay(publisher, using).drain()
        assert len(seen) >= 5
        assert not any(seen)

    @pytest.mark.postgres
    def test_not_in_the_server(self):
        send(("a", ""), ("b", "k"), ("c", "k"))
        url = environment()["DATABASE_URL"]
        with psycopg.connect(url, autocommit=True) as watcher:

            def look(*_):
                rows = watcher.execute(
                    "SELECT state FROM pg_stat_activity WHERE datname = current_database() "
                    "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
                )
                seen.extend(state for (state,) in rows)
                return Status.ACKED

            seen = []
            publisher = ScriptedPublisher(look)
            publisher.before_confirms = look
            relay(publisher).drain()
        assert len(seen) >= 5
        assert set(seen) == {"idle"}


@real_commits
@pytest.mark.postgres
class TestDatabaseGone:
    def test_in_the_middle_of_a_drain(self, caplog):
        caplog.set_level(logging.INFO, "outbox.relay")
        sent = send(("a", ""), ("b", ""))
        publisher, url = ScriptedPublisher(), environment()["DATABASE_URL"]

        def cut():
            publisher.before_confirms = lambda: None
            with psycopg.connect(url, autocommit=True) as other:
                pid = connection.connection.info.backend_pid
                other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

        publisher.before_confirms = cut
        one = relay(publisher)
        report = one.drain()
        assert "OperationalError" in report.outage
        assert (report.published, OutboxTodo.objects.count()) == (0, 2)
        one._pacing._paused_until = 0
        expire_leases()
        report = one.drain()
        assert (report.published, report.outage) == (2, "")
        assert publisher.submitted == sent + sent
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


ONE_LANE = """
from django.conf import settings
settings.OUTBOX |= {"LANES": 1}
"""

KILLED = """
import os, signal
from outbox.relay import Relay
from tests.outbox_support import ScriptedPublisher
relay = Relay("default", {using!r}, ScriptedPublisher())
def die(*_):
    print(len(relay._publisher.submitted), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
relay._store.settle = die
relay.drain()
"""


@real_commits
@pytest.mark.parametrize("using", VENDORS)
def test_killed_between_confirm_and_settle(using):
    """G2: what was not recorded is sent again, and nothing is lost."""
    sent = send(("a", ""), ("b", "k"), using=using)
    process = start(ONE_LANE + KILLED.format(using=using))
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (-9, "2\n"), err
    assert list(states(using).values()) == ["NEW", "NEW"]
    publisher = ScriptedPublisher()
    assert relay(publisher, using).drain().claimed == 0  # until the lease of the dead one ends
    expire_leases(using)
    assert relay(publisher, using).drain().published == 2
    assert publisher.submitted == sent


SMALL_PAGES = """
from django.conf import settings
settings.OUTBOX |= {"BATCH_SIZE": 5}
"""

TWO = """
import sys
from outbox.relay import Relay
from tests.outbox_support import ScriptedPublisher
publisher = ScriptedPublisher()
relay = Relay("default", {using!r}, publisher)
print("ready", flush=True)
sys.stdin.readline()
while relay.waiting():
    assert relay.drain().outage == ""
print(*(message.id for message in publisher.submitted))
"""


@real_commits
@pytest.mark.parametrize("using", VENDORS)
def test_two_relays_in_two_processes(using):
    with captured_messages(using) as messages:
        send(*[("a", str(n % 40)) for n in range(400)], using=using)
    processes = [start(SMALL_PAGES + TWO.format(using=using)) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.communicate()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    sent = [finish(process).split() for process in processes]
    assert sorted(sent[0] + sent[1]) == sorted(str(message.id) for message in messages.all())
    assert states(using) == {}
    recorded = OutboxLane.objects.using(using).values_list("published", flat=True)
    assert sum(recorded) == 400
    order = {str(message.id): n for n, message in enumerate(messages.all())}
    keys = {str(message.id): message.key for message in messages.all()}
    for mine in sent:
        for key in {keys[one] for one in mine}:
            positions = [order[one] for one in mine if keys[one] == key]
            assert positions == sorted(positions)


@real_commits
class TestRun:
    def test_until_it_is_told_to_stop(self, tune):
        """An outage does not end it, and what comes later is sent."""
        tune(POLL=(timedelta(seconds=0.01), timedelta(seconds=0.02)))
        stop, publisher = threading.Event(), ScriptedPublisher()
        publisher.open_error = BrokerUnavailable("refused")
        one = relay(publisher)
        one._pacing._backoff = type(one._pacing._backoff)(
            base=timedelta(seconds=0.02), max=timedelta(seconds=0.02)
        )
        report = DrainReport()

        def run():
            one.run(stop, report)

        thread = threading.Thread(target=run)
        send(("a", ""))
        thread.start()
        while not one._pacing._outages:
            time.sleep(0.005)
        publisher.open_error = None
        send(("b", ""))
        deadline = time.monotonic() + 10
        while OutboxTodo.objects.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        stop.set()
        thread.join(10)
        assert not thread.is_alive()
        assert sorted(publisher.topics) == ["a", "b"]
        assert (report.published, report.outage) == (2, "")
        assert not publisher.is_open


@real_commits
def test_what_a_page_costs(django_assert_max_num_queries):
    """Look, take the lane, read, send, settle, look again; whatever the size of the page."""
    stores["default"].give_back(
        stores["default"].acquire("default", 0, 1, uuid.uuid4(), timedelta(seconds=1))
    )
    send(*[("a", str(n)) for n in range(50)])
    one = relay(ScriptedPublisher())
    with django_assert_max_num_queries(13):
        one.drain()
