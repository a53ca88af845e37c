"""One outbox, two brokers: orders go to Kafka, cancellations to RabbitMQ."""

from __future__ import annotations

import kombu
import pytest

from demo_app.orders import CANCELLED
from tests.acceptance.conftest import database
from tests.acceptance.project import GROUPS, wait_for
from tests.acceptance.retail import real_or_like_it
from tests.services import fleet

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.postgres,
    pytest.mark.rabbitmq,
    pytest.mark.kafka_real,
    pytest.mark.timeout(300),
]

TAKEN_IN = (
    "SELECT group_name, count(*) FROM inbox_message WHERE processed_at IS NOT NULL "
    "GROUP BY group_name"
)


@pytest.fixture
def project(new_project, database_url, rabbitmq_url):
    with fleet.running("kafka") as cluster, database(database_url) as url:
        yield new_project(
            url,
            DJANGO_SETTINGS_MODULE="tests.acceptance.two_brokers.settings",
            KAFKA_BOOTSTRAP_SERVERS=cluster.url,
            RABBITMQ_URL=rabbitmq_url,
            BATCH_SIZE="5",
        )
    with kombu.Connection(rabbitmq_url) as connection, connection.channel() as channel:
        for group in GROUPS:
            for queue in (f"{group}-cancelled.{CANCELLED}", f"{group}-cancelled.dead"):
                channel.queue_delete(queue)
            channel.exchange_delete(f"{group}-cancelled.dlx")
        channel.exchange_delete("two-brokers")


def test_an_import_to_two_brokers_survives_kills_of_both_relays(project, tmp_path):
    project.manage("outbox_topology", "--diff", code=5)
    project.manage("outbox_topology", "--declare", "--partitions", "4")
    project.manage("inbox_topology", "--declare", "--partitions", "4")
    project.manage("outbox_topology", "--diff")
    project.manage("inbox_topology", "--diff")

    consumers = project.start("inbox", "inbox_consume")
    wait_for(lambda: "ready" in consumers.log.read_text(), "the consumers")
    relays = {
        alias: project.start(f"relay-{alias}", "outbox_relay", "--broker", alias)
        for alias in ("stream", "default")
    }
    importing = project.start("import", "import_orders", str(real_or_like_it(tmp_path)))
    for alias, group in (("stream", "warehouse"), ("default", "warehouse-cancelled")):
        taken_in = f"SELECT count(*) FROM inbox_message WHERE group_name = '{group}'"
        wait_for(lambda sql=taken_in: project.one(sql) > 1, f"{group} at work")
        relays[alias].kill()
        waiting = f"SELECT count(*) FROM outbox_todo WHERE broker = '{alias}'"
        wait_for(lambda sql=waiting: project.one(sql) > 1, f"messages wait for {alias}")
        relays[alias].start()
    wait_for(lambda: not importing.running, "the end of the import")
    project.wait_settled()
    project.assert_each_effect_once()
    orders = project.one("SELECT count(*) FROM demo_app_order WHERE NOT cancels")
    cancellations = project.one("SELECT count(*) FROM demo_app_order WHERE cancels")
    assert min(orders, cancellations) > 0
    expected = dict.fromkeys(GROUPS, orders)
    expected |= {f"{group}-cancelled": cancellations for group in GROUPS}
    assert dict(project.rows(TAKEN_IN)) == expected
    assert project.one("SELECT count(*) FROM inbox_quarantine") == 0
