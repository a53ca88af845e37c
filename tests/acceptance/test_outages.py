"""Broker or database away for half a minute; nobody bound; and everybody comes back alone."""

from __future__ import annotations

import re
import time

import pytest

from demo_app.orders import CANCELLED, PLACED
from tests.acceptance.conftest import database, delete_queues
from tests.acceptance.project import GROUPS, wait_for
from tests.services import fleet
from tests.services.kafka import create_topics
from tests.services.postgres import Postgres
from tests.services.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]

HALF_A_MINUTE = 30


def start_shop(project):
    consumers = project.start_consumers()
    relay = project.start("relay", "outbox_relay")
    load = project.start("load", "place_orders", "--rate", "20")
    wait_for(lambda: project.one("SELECT count(*) FROM demo_app_shipment"), "the first effect")
    return [*consumers.values(), relay], load


def assert_said_once(process, broken, mended):
    """One log line when it begins and one when it ends, however long it lasts."""
    log = process.log.read_text()
    assert log.count(broken) == 1, f"{process.name}:\n{log}"
    assert log.count(mended) == 1, f"{process.name}:\n{log}"
    assert "Traceback" not in log, f"{process.name}:\n{log}"


@pytest.mark.rabbitmq
@pytest.mark.postgres
def test_the_broker_away_for_half_a_minute(new_project, database_url):
    with RabbitMQ.running() as broker, database(database_url) as url:
        # Classic, because RabbitMQ 3.10 brings quorum queues back without a leader in about every
        # other SIGKILL when clients are waiting for it ("leader call - leader not known").
        project = new_project(url, RABBITMQ_URL=broker.url, QUEUE_TYPE="classic")
        processes, load = start_shop(project)
        broker.kill()
        time.sleep(HALF_A_MINUTE)
        assert all(process.running for process in [*processes, load])
        waiting = project.one("SELECT count(*) FROM outbox_todo")
        assert waiting > HALF_A_MINUTE, "orders went on being placed and had to wait"
        assert project.one("SELECT count(*) FROM outbox_todo WHERE attempts > 0") == 0
        broker.start()
        load.stop()
        project.wait_settled()
        project.assert_each_effect_once()
        for process in processes:
            assert_said_once(process, "unavailable", "again")
        project.stop()


KILLS = 2


def kill_under_load(project, broker, *, with_clients: bool):
    """SIGKILL the broker again and again while orders come in."""
    consumers = project.start_consumers()
    clients = [*consumers.values(), project.start("relay", "outbox_relay")]
    load = project.start("load", "place_orders", "--rate", "80")
    for _ in range(KILLS):
        before = project.one("SELECT count(*) FROM demo_app_shipment")
        wait_for(
            lambda before=before: (
                project.one("SELECT count(*) FROM demo_app_shipment") > before + 100
            ),
            "effects go on",
        )
        broker.kill()
        if with_clients:
            for process in clients:
                process.kill()
        at = project.one("SELECT count(*) FROM demo_app_order")
        wait_for(
            lambda at=at: project.one("SELECT count(*) FROM demo_app_order") > at + 50,
            "orders go on being placed",
        )
        assert project.one("SELECT count(*) FROM outbox_todo") >= 50, "and have to wait"
        broker.start()
        if with_clients:
            for process in clients:
                process.start()
    load.stop()
    project.wait_settled()
    project.assert_each_effect_once()
    assert all(process.running for process in clients)
    if not with_clients:
        # A handler that was killed itself may have had a second attempt; no other.
        assert project.one("SELECT count(*) FROM inbox_message WHERE attempts > 1") == 0
    assert project.one("SELECT count(*) FROM inbox_quarantine") == 0
    for process in clients:
        process.stop()
        assert "Traceback" not in process.log.read_text(), process.log.read_text()
    # An outage is nobody's fault: no attempt failed.
    (totals,) = re.findall(r"stopped: .*", clients[-1].log.read_text())
    assert " 0 to retry, 0 dead," in totals


@pytest.mark.rabbitmq
@pytest.mark.postgres
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_rabbitmq_is_killed_under_load(new_project, database_url, queue_type):
    with RabbitMQ.running() as broker, database(database_url) as url:
        project = new_project(url, RABBITMQ_URL=broker.url, QUEUE_TYPE=queue_type)
        # Quorum queues of 3.10 lose their leader when clients wait for the node (see above), so
        # that here the whole machine dies.
        kill_under_load(project, broker, with_clients=queue_type == "quorum")
        project.stop()


@pytest.mark.kafka_real
@pytest.mark.postgres
def test_kafka_is_killed_under_load(new_project, database_url):
    with fleet.running("kafka") as broker, database(database_url) as url:
        create_topics(broker.url, [PLACED, CANCELLED, *(f"{group}.dead" for group in GROUPS)])
        project = new_project(url, BROKER="kafka", KAFKA_BOOTSTRAP_SERVERS=broker.url)
        kill_under_load(project, broker, with_clients=False)
        project.stop()


@pytest.mark.rabbitmq
def test_the_database_away_for_half_a_minute(new_project, rabbitmq_url):
    delete_queues(rabbitmq_url)
    with Postgres.running() as server:
        project = new_project(server.url, RABBITMQ_URL=rabbitmq_url)
        processes, load = start_shop(project)
        load.stop()
        project.manage("place_orders", "--rate", "100", "--seconds", "1")
        server.kill()
        time.sleep(HALF_A_MINUTE)
        assert all(process.running for process in processes)
        server.start()
        project.manage("place_orders", "--rate", "20", "--seconds", "1")
        project.wait_settled()
        project.assert_each_effect_once()
        assert project.one("SELECT count(*) FROM outbox_todo WHERE attempts > 0") == 0
        assert project.one("SELECT count(*) FROM inbox_message WHERE attempts > 1") == 0
        for process in processes:
            assert_said_once(process, "unavailable", "again")
        project.stop()


@pytest.mark.rabbitmq
@pytest.mark.postgres
def test_an_unroutable_message_never_counts_as_published(on_rabbitmq):
    project = on_rabbitmq
    project.env["MAX_ATTEMPTS"] = "3"
    project.start_consumers()
    relay = project.start("relay", "outbox_relay")
    done = project.python(
        """
from django.db import transaction
from outbox import publish
with transaction.atomic():
    publish("nobody.listens", {"n": 1})
    publish("nobody.listens", {"n": 2}, key="k")
    publish("nobody.listens", {"n": 3}, key="k")
"""
    )
    assert done.returncode == 0, done.stderr
    project.manage("place_orders", "--rate", "50", "--seconds", "1")
    dead = "SELECT count(*) FROM outbox_todo WHERE state = 3"
    wait_for(lambda: project.one(dead) == 2, "two dead messages")
    rows = project.rows(
        "SELECT state, attempts, error FROM outbox_todo JOIN outbox_message USING (seq) "
        "WHERE topic = 'nobody.listens' ORDER BY seq"
    )
    assert [(state, attempts) for state, attempts, _ in rows] == [(3, 3), (3, 3), (2, 0)]
    assert "NO_ROUTE" in rows[0][2]
    # The neighbours: every order went its way.
    orders = project.orders()
    for table in ("demo_app_shipment", "demo_app_bill", "demo_app_mail"):
        wait_for(
            lambda table=table: (
                {i for (i,) in project.rows(f"SELECT invoice FROM {table}")} == orders
            ),
            f"all of {table}",
        )
    stats = project.manage("outbox_stats", "--by", "topic")
    assert "nobody.listens" in stats
    assert relay.running
