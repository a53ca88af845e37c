"""Celery tasks that take effect once: real workers on RabbitMQ, killed at any moment."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from celery import Celery
from kombu import Connection

from inbox.models import State
from tests.acceptance.conftest import database
from tests.acceptance.project import wait_for

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.postgres,
    pytest.mark.rabbitmq,
    pytest.mark.timeout(300),
]

POOLS = ("prefork", "threads", "solo")
MESSAGES = 200
KILLS = 6
TASKS = "tests.acceptance.effects.tasks"


class Service:
    """A project, its queue, and one Celery worker that a supervisor would restart."""

    def __init__(self, project, broker_url, queue, pool):
        self.project, self.queue, self.pool = project, queue, pool
        self.broker_url = broker_url
        self.groups: list[int] = []
        command = [sys.executable, "-m", "celery", "-A", "tests.acceptance.effects.app", "worker"]
        options = ["--pool", pool, "--concurrency", "2", "--loglevel", "INFO"]
        beat = ["--beat", "--scheduler", "celery.beat:Scheduler"]
        self.worker = project._start("celery-worker", [*command, *options, *beat])
        self._note()
        wait_for(lambda: "ready." in self.log(), "the worker")

    def send(self, task, *payloads):
        """Send (task id, payload) pairs."""
        with Celery(broker=self.broker_url, set_as_current=False) as app:
            for task_id, payload in payloads:
                app.send_task(f"{TASKS}.{task}", [payload], task_id=task_id, queue=self.queue)

    def send_one(self, task, **payload):
        self.send(task, (str(uuid.uuid4()), {"number": 1, **payload}))

    def log(self):
        return self.worker.log.read_text()

    def revive(self):
        if not self.worker.running:
            self.worker.kill()
            self.worker.start()
            self._note()

    def kill_parent(self):
        """The parent alone: its pool processes may go on for a while."""
        os.kill(self.worker._popen.pid, signal.SIGKILL)
        self.worker._popen.wait(10)
        self.revive()

    def kill_child(self, chance):
        """A process that the parent has started: one of its pool, or its beat."""
        pid = self.worker._popen.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            os.kill(int(chance.choice(children)), signal.SIGKILL)
        return bool(children)

    def end(self):
        self.worker.kill()
        for group in self.groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def waiting(self):
        with Connection(self.broker_url) as connection, connection.channel() as channel:
            return channel.queue_declare(self.queue, passive=True).message_count

    def left(self):
        """The tasks that are still in the queue; takes them out."""
        names = []
        with Connection(self.broker_url) as connection, connection.channel() as channel:
            while message := channel.basic_get(self.queue, no_ack=True):
                names.append(message.headers["task"])
        return names

    def row(self):
        rows = self.project.rows("SELECT state, attempts, error_class FROM inbox_message")
        return rows[0] if rows else None

    def effects(self):
        return Counter(n for (n,) in self.project.rows("SELECT number FROM effects_effect"))

    def _note(self):
        self.groups.append(self.worker._popen.pid)


@pytest.fixture
def start(new_project, database_url, rabbitmq_url):
    """Start a service on one pool, with settings by environment variables."""
    services, queue = [], f"effects-{uuid.uuid4().hex[:8]}"
    with database(database_url) as url:

        def start(pool, **env):
            project = new_project(
                url,
                DJANGO_SETTINGS_MODULE="tests.acceptance.effects.settings",
                CELERY_BROKER_URL=rabbitmq_url,
                QUEUE=queue,
                **env,
            )
            project.manage("migrate", "--run-syncdb", "--verbosity", "0")
            services.append(Service(project, rabbitmq_url, queue, pool))
            return services[-1]

        yield start
        for service in services:
            service.end()
    with Connection(rabbitmq_url) as connection, connection.channel() as channel:
        channel.queue_delete(queue)


@pytest.mark.parametrize("pool", POOLS)
def test_each_effect_once_whatever_is_killed(start, pool):
    chance = random.Random()
    seed = chance.randrange(2**32)
    chance.seed(seed)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    service = start(pool)
    tasks = [(str(uuid.uuid4()), {"number": n, "seconds": 0.05}) for n in range(MESSAGES)]
    copies = [task for task in tasks for _ in range(chance.choice((1, 2, 3)))]
    chance.shuffle(copies)
    service.send("work", *copies)
    under_way = kills = 0
    while kills < KILLS:
        at_start = service.effects().total()
        wait_for(lambda count=at_start: service.effects().total() > count, "the worker at work")
        time.sleep(chance.uniform(0, 0.6))
        under_way += service.effects().total() < MESSAGES
        if pool == "prefork" and kills % 2 == 0 and service.kill_child(chance):
            service.revive()
        else:
            service.kill_parent()
        kills += 1
        if service.effects().total() == MESSAGES:
            break
    wait_for(lambda: service.effects().total() >= MESSAGES, "all effects")
    wait_for(lambda: service.revive() or service.waiting() == 0, "an empty queue")
    assert service.effects() == Counter(range(MESSAGES))
    states = service.project.rows("SELECT state, count(*) FROM inbox_message GROUP BY state")
    assert states == [(State.PROCESSED, MESSAGES)]
    assert under_way > KILLS / 2, "the kills met a worker at rest: they prove nothing"
    # Copies that were sent twice on purpose, and what the kills have brought again.
    assert service.project.one("SELECT sum(duplicates) FROM inbox_message") > 0


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_that_kills_its_process_runs_out_of_attempts(start, tmp_path, pool):
    service = start(pool, MAX_ATTEMPTS="2")
    runs = tmp_path / "runs"
    service.send_one("kill", runs=str(runs))

    def is_dead():
        service.revive()
        return service.row() is not None and service.row()[0] == State.DEAD

    wait_for(is_dead, "the end of the attempts")
    assert service.row() == (State.DEAD, 2, "HandlerEndedProcess")
    # The first arrival is no repeat: its run is not counted.
    assert len(runs.read_text()) == 3
    assert not service.effects()
    # The worker goes on, and the message does not come back.
    service.send_one("work")
    wait_for(lambda: service.revive() or service.effects().total() == 1, "the next task")
    service.worker.stop()
    assert f"{TASKS}.kill" not in service.left()
    assert len(runs.read_text()) == 3


@pytest.mark.parametrize("pool", POOLS)
def test_a_failed_task_is_parked_and_retried_from_the_table(start, tmp_path, pool):
    service = start(pool)
    runs, until = tmp_path / "runs", tmp_path / "until"
    service.send_one("fail_until", runs=str(runs), until=str(until))
    wait_for(lambda: runs.exists() and len(runs.read_text()) > 1, "the first retry")
    assert not service.effects()
    assert service.row()[2] == "LookupError"
    assert service.waiting() == 0
    until.touch()
    wait_for(lambda: service.row()[0] == State.PROCESSED, "the retry that succeeds")
    assert service.effects() == Counter([1])


def test_a_task_over_its_hard_time_limit_comes_back_until_it_is_dead(start, tmp_path):
    service = start("prefork", MAX_ATTEMPTS="1")
    runs = tmp_path / "runs"
    service.send_one("hang", runs=str(runs))
    wait_for(lambda: service.row() and service.row()[0] == State.DEAD, "the end of the attempts")
    assert len(runs.read_text()) == 2
    assert not service.effects()


def test_what_the_database_refuses_goes_back_to_the_queue(start):
    service = start("solo")
    rename(service, "inbox_message", "away")
    service.send_one("work")
    wait_for(lambda: "the database takes nothing" in service.log(), "the refusal")
    assert not service.effects()
    rename(service, "away", "inbox_message")
    wait_for(lambda: service.effects() == Counter([1]), "the effect")


def rename(service, old, new):
    with psycopg.connect(service.project.database_url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {old} RENAME TO {new}")
