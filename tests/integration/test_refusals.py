"""A message that its broker refuses, among good ones: relay, database and broker are real.

Whatever the refusal, the culprit's row says what happened and what to do, its neighbours are sent
although they shared its window, and the relay goes on without a person.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

import kombu
import pytest
from django.db import connections, transaction

from outbox import Draft, publish_many
from outbox.models import OutboxMessage, OutboxTodo, TodoState
from outbox.relay import DrainReport, Relay
from tests.services.kafka import Kafka, create_topics
from tests.services.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgres]

PATIENCE = 40
ATTEMPTS = 3


@dataclass
class Bench:
    """One broker, where topic ``good`` arrives and topic ``bad`` is refused."""

    good: str
    bad: str
    look: Callable[[], list[str]]
    """Ids that came since the last look."""
    payload: object = None
    """Of the bad one."""
    arrived: Counter[str] = field(default_factory=Counter)

    def has(self, ids: list[str]) -> bool:
        self.arrived.update(self.look())
        return set(ids) <= set(self.arrived)


@pytest.fixture
def outbox(settings):
    def use(backend: str, *routes, url="", **options):
        settings.OUTBOX = settings.OUTBOX | {
            "BROKERS": {
                "default": {
                    "BACKEND": f"outbox.brokers.{backend}",
                    "URL": url,
                    "OPTIONS": options,
                }
            },
            "ROUTES": [*routes, ("*", "default")],
            "MAX_ATTEMPTS": ATTEMPTS,
            "LANES": 1,
            "BACKOFF": {"BASE": timedelta(seconds=0.1), "MAX": timedelta(seconds=0.1)},
            "POLL": (timedelta(seconds=0.05), timedelta(seconds=0.1)),
        }

    return use


@contextlib.contextmanager
def running() -> Iterator[DrainReport]:
    """The relay as it runs in production, pauses and all."""
    stop, report = threading.Event(), DrainReport()

    def run() -> None:
        # A publisher belongs to the thread that made it.
        Relay("default", "default").run(stop, report)
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield report
    finally:
        stop.set()
        thread.join()


def send(*topics: str, key: str = "", payload: object = None) -> list[str]:
    drafts = [Draft(topic, payload, key=key) for topic in topics]
    with transaction.atomic():
        return [str(message.id) for message in publish_many(drafts)]


def wait(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        rows = list(OutboxTodo.objects.values_list("state", "attempts", "error_class", "error"))
        assert time.monotonic() < deadline, f"{what}: {Counter(rows).most_common(4)}"
        time.sleep(0.02)


def check(bench: Bench, error_class: str, *texts: str) -> None:
    """The culprit dies of its own fault, alone; everybody else arrives."""
    with transaction.atomic():
        before = send(*[bench.good] * 20)
        (culprit,) = send(bench.bad, key="k", payload=bench.payload)
        (behind,) = send(bench.good, key="k")
        after = send(*[bench.good] * 20)
    with running():
        wait(lambda: bench.has(before + after), "its neighbours arrive")
        wait(lambda: OutboxTodo.objects.filter(state=TodoState.DEAD), "the culprit is dead")
        # The connection is as good as before.
        later = send(*[bench.good] * 5)
        wait(lambda: bench.has(later), "those that came later arrive")
    dead, parked = OutboxTodo.objects.order_by("seq")
    assert (_id(dead), dead.attempts, dead.error_class) == (culprit, ATTEMPTS, error_class)
    assert (_id(parked), parked.state, parked.attempts) == (behind, TodoState.PARKED, 0)
    for text in texts:
        assert text in dead.error
    assert set(bench.arrived) == {*before, *after, *later}


def _id(row: OutboxTodo) -> str:
    return str(OutboxMessage.objects.get(seq=row.seq).id)


# RabbitMQ.


@contextlib.contextmanager
def on_rabbitmq(url: str) -> Iterator[tuple[Any, str]]:
    """A channel and the name of an exchange with one queue, of the same name, for ``*.good``."""
    name = f"ref-{uuid.uuid4().hex}"
    with kombu.Connection(url) as connection, connection.channel() as channel:
        channel.exchange_declare(name, "topic", durable=True, auto_delete=False)
        channel.queue_declare(name, durable=True, auto_delete=False)
        channel.queue_bind(name, name, "good")
        yield channel, name
        for queue in (name, f"{name}.full"):
            channel.queue_delete(queue)
        channel.exchange_delete(name)


def rabbit_bench(channel, name: str, payload: object = None) -> Bench:
    def look() -> list[str]:
        got = iter(lambda: channel.basic_get(name, no_ack=True), None)
        return [message.properties["message_id"] for message in got]

    return Bench("good", "bad", look, payload)


PUBLISHER = "rabbitmq.RabbitMQPublisher"


@pytest.mark.rabbitmq
def test_r7_an_exchange_that_is_not_there(outbox, rabbitmq_url):
    with on_rabbitmq(rabbitmq_url) as (channel, name):
        target = {"BROKER": "default", "ADDRESS": {"exchange": "typo"}}
        outbox(PUBLISHER, ("bad", target), url=rabbitmq_url, exchange=name)
        check(
            rabbit_bench(channel, name),
            "BrokerMisconfigured",
            "no exchange 'typo'",
            "outbox_topology --declare",
        )


@pytest.mark.rabbitmq
def test_r4_a_queue_that_is_full(outbox, rabbitmq_url):
    with on_rabbitmq(rabbitmq_url) as (channel, name):
        full = {"x-max-length": 0, "x-overflow": "reject-publish"}
        channel.queue_declare(f"{name}.full", durable=True, auto_delete=False, arguments=full)
        channel.queue_bind(f"{name}.full", name, "bad")
        outbox(PUBLISHER, url=rabbitmq_url, exchange=name)
        check(rabbit_bench(channel, name), "nacked", "basic.nack", "x-max-length")


@pytest.mark.rabbitmq
def test_r2_nobody_is_bound(outbox, rabbitmq_url):
    with on_rabbitmq(rabbitmq_url) as (channel, name):
        outbox(PUBLISHER, url=rabbitmq_url, exchange=name)
        check(rabbit_bench(channel, name), "returned", "NO_ROUTE", "inbox_topology --declare")


@pytest.fixture(scope="module")
def own_broker() -> Iterator[RabbitMQ]:
    """A node whose limits and accounts a test may change."""
    with RabbitMQ.running() as broker:
        broker.ctl("eval", "application:set_env(rabbit, max_message_size, 2000).")
        broker.ctl("add_user", "app", "secret")
        yield broker


@pytest.mark.rabbitmq
def test_r7_a_message_above_the_brokers_limit(outbox, own_broker):
    with on_rabbitmq(own_broker.url) as (channel, name):
        outbox(PUBLISHER, url=own_broker.url, exchange=name)
        check(
            rabbit_bench(channel, name, payload="x" * 3000),
            "BrokerMisconfigured",
            "406",
            "max_message_size",
            "OUTBOX['MAX_BODY']",
        )


@pytest.mark.rabbitmq
def test_r7_an_exchange_that_the_account_may_not_write_to(outbox, own_broker):
    with on_rabbitmq(own_broker.url) as (channel, name):
        channel.exchange_declare("forbidden", "topic", durable=True, auto_delete=False)
        own_broker.ctl("set_permissions", "app", "^$", f"^{name}$", "^$")
        target = {"BROKER": "default", "ADDRESS": {"exchange": "forbidden"}}
        url = own_broker.url.replace("guest:guest", "app:secret")
        outbox(PUBLISHER, ("bad", target), url=url, exchange=name, declare=False)
        check(
            rabbit_bench(channel, name),
            "BrokerMisconfigured",
            "403",
            "'forbidden'",
            "rabbitmqctl set_permissions",
        )


@pytest.mark.rabbitmq
def test_a_start_without_its_exchange_is_an_outage_and_burns_no_attempt(outbox, rabbitmq_url):
    with on_rabbitmq(rabbitmq_url) as (_, name):
        outbox(PUBLISHER, url=rabbitmq_url, exchange=f"{name}.none", declare=False)
        send("good")
        report = Relay("default", "default").drain()
        assert "outbox_topology --declare" in report.outage
        assert OutboxTodo.objects.filter(attempts__gt=0).count() == 0


# Kafka.


@contextlib.contextmanager
def kafka_bench(bootstrap: str, payload: object = None) -> Iterator[tuple[Bench, Any]]:
    """Topic ``bad`` is made by the test, in its own way."""
    from confluent_kafka import Consumer
    from confluent_kafka.admin import AdminClient

    name = f"ref-{uuid.uuid4().hex}"
    create_topics(bootstrap, [f"{name}.good"])
    group = {"group.id": name, "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": bootstrap, **group})
    consumer.subscribe([f"{name}.good"])

    def look() -> list[str]:
        return [dict(each.headers())["ce_id"].decode() for each in consumer.consume(100, 0.2)]

    bench = Bench(f"{name}.good", f"{name}.bad", look, payload)
    with contextlib.closing(consumer):
        yield bench, AdminClient({"bootstrap.servers": bootstrap})


def make_topic(admin, bootstrap: str, name: str, **config: str) -> None:
    from confluent_kafka.admin import NewTopic

    given = {key.replace("_", "."): value for key, value in config.items()}
    admin.create_topics([NewTopic(name, 4, 1, config=given)])[name].result(PATIENCE)
    create_topics(bootstrap, [name])


@pytest.mark.kafka_real
def test_f11_a_topic_that_is_not_there(outbox, kafka_bootstrap):
    outbox("kafka.KafkaPublisher", **{"bootstrap.servers": kafka_bootstrap})
    with kafka_bench(kafka_bootstrap) as (bench, _):
        check(bench, "returned", f"Topic '{bench.bad}' must exist", "outbox_topology --declare")


@pytest.mark.kafka_real
def test_f8_a_message_above_the_topics_limit(outbox, kafka_bootstrap):
    outbox("kafka.KafkaPublisher", **{"bootstrap.servers": kafka_bootstrap})
    with kafka_bench(kafka_bootstrap, payload="x" * 3000) as (bench, admin):
        make_topic(admin, kafka_bootstrap, bench.bad, max_message_bytes="1000")
        cure = f"max.message.bytes of topic '{bench.bad}'"
        check(bench, "nacked", "MSG_SIZE_TOO_LARGE", cure, "MAX_BODY")


class GuardedKafka(Kafka):
    """Everybody may do everything, except where an access control list says otherwise."""

    OPTIONS: ClassVar[dict[str, str]] = Kafka.OPTIONS | {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }


@pytest.mark.kafka_real
def test_f5_a_topic_that_the_account_may_not_write_to(outbox):
    from confluent_kafka import admin as api

    with GuardedKafka.running() as broker, kafka_bench(broker.url) as (bench, admin):
        make_topic(admin, broker.url, bench.bad)
        describe = api.AclBinding(
            api.ResourceType.TOPIC,
            bench.bad,
            api.ResourcePatternType.LITERAL,
            "User:ANONYMOUS",
            "*",
            api.AclOperation.DESCRIBE,
            api.AclPermissionType.ALLOW,
        )
        admin.create_acls([describe])[describe].result(PATIENCE)
        outbox("kafka.KafkaPublisher", **{"bootstrap.servers": broker.url})
        check(bench, "nacked", "TOPIC_AUTHORIZATION_FAILED", "WRITE and DESCRIBE", bench.bad)
