import io
import json
import signal
import subprocess
import sys
import time
import uuid
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction

from outbox import Draft, publish, publish_many
from outbox.models import OutboxLane, OutboxTodo, TodoState
from outbox.runtime import hub
from outbox.runtime.shutdown import StopSignal
from outbox.store import stores
from tests.outbox_support import ROOT, VENDORS, environment

DATABASES = ["default", "sqlite"]
pytestmark = pytest.mark.django_db(databases=DATABASES)
real_commits = pytest.mark.django_db(transaction=True, databases=DATABASES)


@pytest.fixture(autouse=True)
def broker(settings):
    """Three memory brokers, one of which is down."""
    settings.OUTBOX = settings.OUTBOX | {
        "BROKERS": {
            "default": {"BACKEND": "outbox.brokers.memory.MemoryPublisher"},
            "down": {"BACKEND": "tests.outbox_support.DownPublisher"},
            "stream": {"BACKEND": "outbox.brokers.memory.MemoryPublisher"},
        },
        "ROUTES": [("s.*", "stream"), ("d.*", "down"), ("*", "default")],
    }
    yield hub.get("default")
    hub.get("default").clear()


def send(*topics, using="default"):
    with transaction.atomic(using=using):
        publish_many([Draft(topic, None) for topic in topics], using=using)


def run(name, *args):
    out = io.StringIO()
    call_command(name, *args, stdout=out)
    return out.getvalue()


@real_commits
class TestRelay:
    @pytest.mark.parametrize("until", ["--once", "--drain"])
    def test_hands_over_and_ends(self, broker, until):
        send("a", "s.b", "a")
        out = run("outbox_relay", until, "--broker", "default", "--broker", "stream")
        assert out == (
            "outbox_relay ready\n"
            "stopped: 3 published, 0 to retry, 0 dead, 0 parked, 0 released, 0 fenced\n"
        )
        assert sorted(record.topic for record in broker.records()) == ["a", "a", "s.b"]
        assert not OutboxTodo.objects.exists()

    def test_only_one_broker(self, broker):
        send("a", "s.b")
        run("outbox_relay", "--drain", "--broker", "stream")
        assert [record.topic for record in broker.records()] == ["s.b"]

    @pytest.mark.parametrize("using", VENDORS)
    def test_of_a_database(self, broker, using):
        send("a", using=using)
        run("outbox_relay", "--drain", "--broker", "default", "--database", using)
        assert not OutboxTodo.objects.using(using).exists()

    def test_json_lines(self):
        send("a")
        out = run("outbox_relay", "--drain", "--broker", "default", "--json-lines")
        ready, stopped = map(json.loads, out.splitlines())
        assert (ready["v"], ready["event"]) == (1, "ready")
        assert stopped.pop("seconds") > 0
        assert stopped == {
            "v": 1,
            "event": "stopped",
            "claimed": 1,
            "published": 1,
            "retried": 0,
            "dead": 0,
            "parked": 0,
            "released": 0,
            "fenced": 0,
            "outage": "",
        }

    def test_an_unknown_broker(self):
        with pytest.raises(CommandError, match=r"Not in OUTBOX.*: nope, x") as caught:
            run("outbox_relay", "--once", "--broker", "x", "--broker", "nope")
        assert caught.value.returncode == 2

    def test_what_another_relay_holds_is_waited_for(self, broker):
        send("a")
        for lane in range(8):
            lease = timedelta(seconds=0.7)
            assert stores["default"].acquire("default", lane, 8, uuid.uuid4(), lease)
        once = run("outbox_relay", "--once", "--broker", "default")
        assert "stopped: 0 published" in once
        drained = run("outbox_relay", "--drain", "--broker", "default")
        assert "stopped: 1 published" in drained

    @pytest.mark.parametrize("command", ["outbox_relay", "outbox_stats"])
    def test_an_unknown_database(self, command):
        with pytest.raises(CommandError, match="invalid choice: 'nope'"):
            run(command, "--database", "nope")

    @pytest.mark.parametrize("until", ["--once", "--drain"])
    def test_an_unreachable_broker_does_not_keep_the_others(self, broker, until):
        send("d.a", "a", "s.b")
        with pytest.raises(
            CommandError, match="'down': BrokerUnavailable: connection refused"
        ) as caught:
            run("outbox_relay", until)
        assert caught.value.returncode == 6
        assert sorted(record.topic for record in broker.records()) == ["a", "s.b"]
        assert OutboxTodo.objects.get().state == TodoState.NEW

    def test_an_outage_is_in_the_last_line_whichever_broker_had_it(self):
        send("d.a", "a")
        out = io.StringIO()
        with pytest.raises(CommandError):
            call_command("outbox_relay", "--drain", "--json-lines", stdout=out)
        assert json.loads(out.getvalue().splitlines()[-1])["outage"] != ""

    def test_the_handlers_of_the_caller_are_put_back(self):
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        run("outbox_relay", "--once", "--broker", "default")
        assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.fixture
def process():
    """Start the command in a process of its own; a broker that answers after ``seconds``."""
    started = []

    def start(seconds):
        env = environment(DJANGO_SETTINGS_MODULE="tests.slow_settings", SECONDS=str(seconds))
        started.append(
            subprocess.Popen(
                [sys.executable, "manage.py", "outbox_relay"],
                cwd=ROOT,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


def wait_for(process, start):
    for line in process.stdout:
        if line.startswith(start):
            return
    pytest.fail(process.communicate()[1])


def lane_is_free():
    row = OutboxLane.objects.order_by("-seq").first()
    return row.lease_until <= row.at


@real_commits
class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_the_first_ends_it_cleanly(self, process, number):
        """G16: no new page, what is in flight is awaited, the lane is given back."""
        send(*"abcdefgh")
        one = process(0.1)
        wait_for(one, "submitted")
        one.send_signal(number)
        out, err = one.communicate(timeout=20)
        assert one.returncode == 0, err
        assert out.splitlines()[-1].startswith("stopped: 3 published, 0 to retry")
        assert OutboxTodo.objects.count() == 5
        assert lane_is_free()

    def test_while_idle(self, process):
        one = process(0.1)
        wait_for(one, "outbox_relay ready")
        one.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert one.wait(20) == 0, one.communicate()[1]
        assert time.monotonic() - began < 5

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
    def test_the_second_ends_it_at_once(self, process, number, code):
        send("a")
        one = process("")
        wait_for(one, "submitted")
        one.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            one.wait(0.3)
        one.send_signal(number)
        assert one.wait(5) == code
        assert OutboxTodo.objects.get().state == TodoState.NEW


STOP = """
import signal, threading, time
from outbox.runtime.shutdown import StopSignal
stop = StopSignal()
with stop.on_signals():
    with stop._cond:  # as in the middle of stop.wait() or stop.set()
        signal.raise_signal(signal.SIGTERM)
    assert stop.wait(10)
print("stopped")
"""


def test_a_signal_in_the_middle_of_a_wait_does_not_hang():
    done = subprocess.run(
        [sys.executable, "-c", STOP],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "stopped\n"


def test_without_a_signal_it_is_an_event():
    stop = StopSignal()
    assert not stop.wait(0)
    stop.set()
    assert stop.wait(0)


class TestStats:
    @pytest.fixture(autouse=True)
    def _rows(self):
        publish("orders.placed", 1)
        publish("s.b", 1)
        publish("s.b", 2)
        OutboxTodo.objects.filter(broker="stream").update(
            state=TodoState.DEAD, error_class="returned"
        )

    def test_text(self):
        lines = run("outbox_stats").splitlines()
        assert lines[0].split() == ["state", "pending", "retrying", "parked", "dead", "oldest"]
        assert [line.split()[:5] for line in lines[1:]] == [
            ["pending", "1", "0", "0", "0"],
            ["dead", "0", "0", "0", "2"],
            ["total", "1", "0", "0", "2"],
        ]
        assert lines[1].split()[5].endswith("s")
        assert lines[2].split()[5] == "-"
        assert len({len(line) for line in lines}) == 1

    @pytest.mark.parametrize(
        ("by", "names"),
        [
            ("state", ["pending", "dead"]),
            ("broker", ["default", "stream"]),
            ("topic", ["orders.placed", "s.b"]),
            ("error", ["", "returned"]),
        ],
    )
    def test_json(self, by, names):
        found = json.loads(run("outbox_stats", "--json", "--by", by))
        assert set(found) == {"v", "command", "database", "at", "totals", "groups"}
        assert (found["v"], found["command"], found["database"]) == (1, "outbox_stats", "default")
        assert found["at"].endswith("Z")
        assert found["totals"].pop("oldest") >= 0
        assert found["totals"] == {"pending": 1, "retrying": 0, "parked": 0, "dead": 2}
        assert [group["name"] for group in found["groups"]] == names
        assert [group["dead"] for group in found["groups"]] == [0, 2]
        assert set(found["groups"][0]) == {
            "name", "pending", "retrying", "parked", "dead", "oldest",
        }  # fmt: skip

    def test_of_a_database(self):
        found = json.loads(run("outbox_stats", "--json", "--database", "sqlite"))
        assert found["totals"] == {
            "pending": 0, "retrying": 0, "parked": 0, "dead": 0, "oldest": None,
        }  # fmt: skip
        assert found["groups"] == []

    def test_nothing(self):
        lines = run("outbox_stats", "--database", "sqlite").splitlines()
        assert [line.split()[0] for line in lines] == ["state", "total"]
