"""A project that installs only the inbox migrates, starts and processes."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from outbox.wire import Message, to_headers

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
PATIENCE = 30


class Service:
    def __init__(self, folder, **env):
        self.database = folder / "service.sqlite3"
        self.group = f"stock-{uuid.uuid4().hex}"
        unwanted = ("DATABASE_URL", "RABBITMQ_URL")
        self.env = {
            **{name: value for name, value in os.environ.items() if name not in unwanted},
            "DJANGO_SETTINGS_MODULE": "tests.acceptance.inbox_alone.settings",
            "DATABASE": str(self.database),
            "GROUP": self.group,
            "PYTHONWARNINGS": "error",
            **env,
        }

    def run(self, *command):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def manage(self, *arguments):
        return self.run("-m", "django", *arguments)

    def reserved(self):
        with sqlite3.connect(self.database) as connection:
            return sorted(
                row[0] for row in connection.execute('SELECT "order" FROM stock_reservation')
            )


@pytest.fixture
def service(tmp_path):
    made = Service(tmp_path)
    made.manage("migrate", "--run-syncdb", "--verbosity", "0")
    return made


def message(**payload):
    return Message(
        id=uuid.uuid4(),
        topic="orders.placed",
        body=json.dumps(payload).encode(),
        source="/shop",
        time=dt.datetime.now(dt.UTC),
    )


def test_nothing_of_the_outbox_but_its_open_part_is_loaded(service):
    service.manage("check")
    assert "No changes" in service.manage("makemigrations", "--check", "inbox")
    code = """
        import sys, django
        django.setup()
        from inbox import worker, testing, stats
        loaded = {name for name in sys.modules if name.startswith("outbox.")}
        closed = {n for n in loaded if not n.startswith(("outbox.wire", "outbox.runtime"))}
        assert not closed, closed
        assert not {"kombu", "amqp", "confluent_kafka", "celery"} & set(sys.modules)
    """
    service.run("-c", textwrap.dedent(code))


def test_without_any_setting_a_script_can_process(service):
    code = """
        import datetime as dt, os, uuid, django
        django.setup()
        from inbox import Delivery, Disposition, Message, process
        message = Message(id=uuid.uuid4(), topic="orders.placed", body=b'{"order": 7}',
                          source="/shop", time=dt.datetime.now(dt.UTC))
        for _ in range(2):
            assert process(Delivery.of(message, os.environ["GROUP"])) is Disposition.ACK
    """
    service.run("-c", textwrap.dedent(code))
    assert service.reserved() == [7]


@pytest.fixture
def with_rabbitmq(service, rabbitmq_url):
    import kombu

    service.env["RABBITMQ_URL"] = rabbitmq_url
    with kombu.Connection(rabbitmq_url) as connection, connection.channel() as channel:
        yield service, channel
        for queue in ("orders.placed", "dead"):
            channel.queue_delete(f"{service.group}.{queue}")
        for exchange in (service.group, f"{service.group}.dlx"):
            channel.exchange_delete(exchange)


def send(service, channel, *messages):
    import amqp

    for each in messages:
        content = amqp.Message(each.body, application_headers=to_headers(each, "ce-"))
        channel.basic_publish(content, exchange=service.group, routing_key=each.topic)


@pytest.mark.rabbitmq
def test_it_consumes_from_rabbitmq(with_rabbitmq):
    service, channel = with_rabbitmq
    assert service.manage("inbox_consume", "--drain").splitlines()[0] == "inbox_consume ready"
    first, second = message(order=1), message(order=2)
    send(service, channel, first, second, first)
    *_, last = service.manage("inbox_consume", "--drain", "--json-lines").splitlines()
    report = json.loads(last)
    assert report["event"] == "stopped"
    assert (report["received"], report["processed"], report["duplicate"]) == (3, 2, 1)
    assert service.reserved() == [1, 2]
    totals = json.loads(service.manage("inbox_stats", "--json"))["totals"]
    assert (totals["processed"], totals["duplicates"], totals["dead"]) == (2, 1, 0)


@pytest.mark.rabbitmq
def test_sigterm_finishes_the_running_handler_and_leaves_the_rest(with_rabbitmq):
    service, channel = with_rabbitmq
    process = subprocess.Popen(
        [sys.executable, "-m", "django", "inbox_consume"],
        cwd=ROOT,
        env=service.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "inbox_consume ready\n"
    send(service, channel, message(order=1, seconds=1), message(order=2))
    deadline = time.monotonic() + PATIENCE
    while not service.database.with_suffix(".running").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert output.splitlines()[-1].startswith("stopped: received 1, processed 1 in ")
    assert service.reserved() == [1]
    service.manage("inbox_consume", "--drain")
    assert service.reserved() == [1, 2]
