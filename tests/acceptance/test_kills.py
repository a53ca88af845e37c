"""SIGKILL at any moment: nothing is lost, and each group's effects happen exactly once."""

from __future__ import annotations

import random
import time

import pytest

from tests.acceptance.project import GROUPS, wait_for
from tests.acceptance.retail import retail_file

pytestmark = [pytest.mark.acceptance, pytest.mark.postgres, pytest.mark.timeout(240)]

SECONDS = 12.0
KILLS = 14


def run_the_shop_and_kill(project):
    """Relay, worker and consumers die at random while orders come in; returns the witnesses."""
    chance = random.Random()
    seed = chance.randrange(2**32)
    chance.seed(seed)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    victims = [*project.start_consumers().values(), project.start_worker()]
    victims.append(project.start("relay", "outbox_relay"))
    load = project.start("load", "place_orders", "--rate", "150", "--seconds", str(SECONDS))
    wait_for(lambda: project.one("SELECT count(*) FROM demo_app_shipment"), "the first effect")
    # Each of them dies at least twice; the order and the moments are chance.
    schedule = chance.sample(victims * 3, k=KILLS)
    under_way = 0
    for victim in schedule:
        time.sleep(chance.uniform(0, 2 * SECONDS / KILLS - 0.4))
        victim.kill()
        under_way += not project.settled()
        time.sleep(chance.uniform(0, 0.3))
        victim.start()
    wait_for(lambda: not load.running, "the end of the load")
    project.wait_settled()
    return under_way


@pytest.mark.rabbitmq
def test_kills_on_rabbitmq(on_rabbitmq):
    under_way = run_the_shop_and_kill(on_rabbitmq)
    on_rabbitmq.assert_each_effect_once()
    assert under_way > KILLS / 2, "the kills met a shop at rest: they prove nothing"


@pytest.mark.kafka_any
def test_kills_on_kafka(on_kafka):
    under_way = run_the_shop_and_kill(on_kafka)
    on_kafka.assert_each_effect_once()
    assert under_way > KILLS / 2, "the kills met a shop at rest: they prove nothing"


@pytest.mark.rabbitmq
def test_an_import_survives_five_kills_of_the_relay(on_rabbitmq, tmp_path):
    source = retail_file(tmp_path / "orders.csv", invoices := 600)
    on_rabbitmq.env["BATCH_SIZE"] = "5"
    on_rabbitmq.start_consumers()
    worker = on_rabbitmq.start_worker()
    wait_for(lambda: "ready" in worker.log.read_text(), "the worker")
    importing = on_rabbitmq.start("import", "import_orders", str(source))
    witnessed = kills = 0
    while kills < 5:
        log = on_rabbitmq.one("SELECT count(*) FROM outbox_lane")
        wait_for(
            lambda log=log: on_rabbitmq.one("SELECT count(*) FROM outbox_lane") > log + 10,
            "the relay at work",
        )
        worker.kill()
        kills += 1
        witnessed += on_rabbitmq.one("SELECT count(*) FROM outbox_todo") > 0
        worker.start()
    wait_for(lambda: not importing.running, "the end of the import")
    on_rabbitmq.wait_settled()
    assert len(on_rabbitmq.orders()) == invoices
    on_rabbitmq.assert_each_effect_once()
    assert witnessed == 5
    report = (on_rabbitmq.folder / "import.log").read_text()
    assert "line 4 skipped: it has no StockCode" in report
    assert "line 6 skipped: its Quantity is no whole number: 'many'" in report
    assert "600 invoices: 540 orders, 60 cancellations" in report
    assert set(GROUPS) == {"warehouse", "billing", "mail"}
