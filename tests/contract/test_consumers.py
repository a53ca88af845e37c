"""The contract of `inbox.brokers.base.Consumer`, stated once and held by every driver."""

from __future__ import annotations

import contextlib
import datetime as dt
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from inbox.brokers.base import Consumer
from inbox.brokers.kafka import KafkaConsumer
from inbox.brokers.memory import MemoryConsumer
from inbox.brokers.rabbitmq import RabbitMQConsumer
from inbox.delivery import Delivery, Disposition
from inbox.exceptions import ConsumerUnavailable, InvalidBroker
from outbox.runtime import hub
from outbox.wire import DecodeError, Message, to_headers
from tests.forked import in_child
from tests.services.kafka import create_topics

PATIENCE = 20
"""Seconds: joining a Kafka group takes some."""

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")

ACK, RETRY, DEAD = Disposition.ACK, Disposition.RETRY, Disposition.DEAD


@dataclass(frozen=True)
class Bench:
    """A broker with a group of its own, as a contract test needs it."""

    make: Callable[..., Consumer]
    """A new consumer of the group; keyword arguments replace the usual ones."""
    topic: str
    publish: Callable[[Mapping[str, str], bytes], None]
    dead: Callable[[], list[bytes]]
    """Bodies that the broker's dead letter queue has."""
    prefix: str
    unreachable: Callable[[], Consumer]
    """A consumer whose broker is not there."""

    def send(self, *bodies: bytes) -> list[Message]:
        messages = [self.message(body) for body in bodies]
        for message in messages:
            self.publish(to_headers(message, self.prefix), message.body)
        return messages

    def message(self, body: bytes) -> Message:
        return Message(
            id=uuid.uuid4(),
            topic=self.topic,
            body=body,
            source="/shop",
            time=dt.datetime(2026, 11, 23, 12, 0, 0, 7, tzinfo=dt.UTC),
            key="42",
            headers={"traceparent": "00-ü"},
        )

    @contextlib.contextmanager
    def opened(self, **changes) -> Iterator[Consumer]:
        consumer = self.make(**changes)
        consumer.open()
        try:
            yield consumer
        finally:
            consumer.close()


def take(consumer: Consumer, count: int) -> list[Delivery]:
    """At least so many deliveries."""
    deadline = time.monotonic() + PATIENCE
    found: list[Delivery] = []
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} came"
        found += consumer.poll(0.2)
    return found


def bodies(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


@pytest.fixture
def memory() -> Iterator[Bench]:
    name = uuid.uuid4().hex
    place = hub.get(name)

    def make(**changes):
        usual = {"group": "g", "topics": ["t"], "prefetch": 10}
        return MemoryConsumer("default", "", {"name": name}, **(usual | changes))

    yield Bench(
        make,
        "t",
        lambda headers, body: place.append(hub.Record("t", headers, body)),
        lambda: [record.body for record in place.dead],
        "ce-",
        make,
    )
    place.clear()


@pytest.fixture
def rabbitmq(rabbitmq_url: str) -> Iterator[Bench]:
    import amqp
    import kombu

    group = f"contract-{uuid.uuid4().hex}"
    exchange = group

    def make(url=rabbitmq_url, **changes):
        usual = {"group": group, "topics": ["t"], "prefetch": 10}
        return RabbitMQConsumer("default", url, {"exchange": exchange}, **(usual | changes))

    with kombu.Connection(rabbitmq_url) as connection, connection.channel() as channel:

        def publish(headers, body):
            fields = dict(headers)
            content_type = fields.pop("content-type", None)
            properties = {"content_type": content_type} if content_type else {}
            message = amqp.Message(body, application_headers=fields, **properties)
            channel.basic_publish(message, exchange=exchange, routing_key="t")

        def dead():
            # Dead-lettering is done behind the reject.
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                if (got := channel.basic_get(f"{group}.dead", no_ack=True)) is not None:
                    return [got.body]
                time.sleep(0.02)
            return []

        first = make()
        first.open()
        first.close()
        yield Bench(
            make,
            "t",
            publish,
            dead,
            "ce-",
            lambda: make("amqp://guest:guest@127.0.0.1:1//"),
        )
        for queue in (f"{group}.t", f"{group}.dead"):
            channel.queue_delete(queue)
        for name in (exchange, f"{group}.dlx"):
            channel.exchange_delete(name)


@pytest.fixture
def kafka(kafka_bootstrap: str) -> Bench:
    from confluent_kafka import Consumer as Client
    from confluent_kafka import Producer

    group, topic = f"contract-{uuid.uuid4().hex}", f"t-{uuid.uuid4().hex}"
    create_topics(kafka_bootstrap, [topic, f"{group}.dead"])
    producer = Producer({"bootstrap.servers": kafka_bootstrap})

    def make(url=f"kafka://{kafka_bootstrap}", **changes):
        usual = {"group": group, "topics": [topic], "prefetch": 10}
        quick = {
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 200,
            # The topic comes with the first message.
            "topic.metadata.refresh.interval.ms": 200,
            "log_level": 2,
        }
        return KafkaConsumer("default", url, quick, **(usual | changes))

    def publish(headers, body):
        producer.produce(topic, body, headers=list(headers.items()), partition=0)
        assert producer.flush(PATIENCE) == 0

    def dead():
        reader = Client(
            {
                "bootstrap.servers": kafka_bootstrap,
                "group.id": uuid.uuid4().hex,
                "auto.offset.reset": "earliest",
            }
        )
        reader.subscribe([f"{group}.dead"])
        got = reader.consume(1, PATIENCE)
        reader.close()
        return [message.value() for message in got]

    return Bench(
        make,
        topic,
        publish,
        dead,
        "ce_",
        lambda: make("kafka://127.0.0.1:1"),
    )


@pytest.fixture(
    params=[
        "memory",
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("kafka", marks=pytest.mark.kafka_any),
    ]
)
def bench(request) -> Bench:
    return request.getfixturevalue(request.param)


def test_a_message_arrives_as_it_was_sent(bench):
    with bench.opened() as consumer:
        (message,) = bench.send(b'{"order":1}')
        (delivery,) = take(consumer, 1)
        assert delivery.message == message
        assert delivery.group == consumer.group
        consumer.settle(delivery, ACK)


def test_acked_is_gone_and_open_comes_again_flagged(bench):
    with bench.opened() as consumer:
        bench.send(b"1", b"2")
        consumer.settle(take(consumer, 2)[0], ACK)
    with bench.opened() as consumer:
        (again,) = take(consumer, 1)
        assert (again.body, again.redelivered) == (b"2", True)
        consumer.settle(again, ACK)
        assert consumer.poll(0.3) == []


def test_an_ack_behind_an_open_delivery_does_not_ack_that_one(bench):
    with bench.opened() as consumer:
        bench.send(b"1", b"2")
        first, second = take(consumer, 2)
        consumer.settle(second, ACK)
    with bench.opened() as consumer:
        assert b"1" in bodies(take(consumer, 1))
    # A settled delivery of the connection before is nobody's business any more.
    with bench.opened() as consumer:
        consumer.settle(first, ACK)
        assert b"1" in bodies(take(consumer, 1))


def test_retry_comes_again_flagged_and_before_what_is_behind_it_where_order_is_kept(bench):
    with bench.opened() as consumer:
        bench.send(b"1", b"2")
        first = take(consumer, 1)[0]
        consumer.settle(first, RETRY)
        came = take(consumer, 2)
        assert sorted(bodies(came)) == [b"1", b"2"]
        again = next(delivery for delivery in came if delivery.body == b"1")
        assert again.redelivered
        for delivery in came:
            consumer.settle(delivery, ACK)
        assert consumer.poll(0.3) == []
    with bench.opened() as consumer:
        assert consumer.poll(0.3) == []


def test_dead_goes_to_the_brokers_dead_letters(bench):
    with bench.opened() as consumer:
        bench.send(b"1", b"2")
        first = take(consumer, 1)[0]
        consumer.settle(first, DEAD)
        (second,) = take(consumer, 1)
        assert second.body == b"2"
        consumer.settle(second, ACK)
        assert bench.dead() == [b"1"]
    with bench.opened() as consumer:
        assert consumer.poll(0.3) == []


def test_no_more_than_prefetch_are_open(bench):
    with bench.opened(prefetch=2) as consumer:
        bench.send(b"1", b"2", b"3")
        came = take(consumer, 2)
        assert len(came) == 2
        assert consumer.poll(0.3) == []
        consumer.settle(came[0], ACK)
        assert bodies(take(consumer, 1)) == [b"3"]


@pytest.mark.parametrize(
    ("headers", "body"),
    [({}, b""), ({}, b"\xff\0"), ({"ce-id": "no uuid"}, b"{}"), ({"content-type": "x"}, b"1")],
)
def test_bytes_that_are_no_message_are_delivered(bench, headers, body):
    with bench.opened() as consumer:
        bench.publish(headers, body)
        (delivery,) = take(consumer, 1)
        assert delivery.body == body
        assert headers.items() <= delivery.headers.items()
        with pytest.raises(DecodeError):
            _ = delivery.message
        consumer.settle(delivery, ACK)


def test_open_and_close_twice(bench):
    consumer = bench.make()
    consumer.open()
    consumer.open()
    consumer.close()
    consumer.close()


def test_a_broker_that_is_not_there(bench, request):
    if "memory" in request.node.name:
        return  # it is always there
    consumer = bench.unreachable()
    started = time.monotonic()
    with pytest.raises(ConsumerUnavailable) as caught:
        consumer.open()
    assert time.monotonic() - started < 10
    assert caught.value.__cause__ is not None
    with pytest.raises(ConsumerUnavailable):
        consumer.poll(0)
    consumer.close()


def test_use_in_a_forked_child_is_refused_and_the_parents_connection_lives_on(bench):
    with bench.opened() as consumer:

        def use():
            consumer.close()
            return consumer.poll(0)

        assert in_child(use).startswith("ConsumerUnavailable: The consumer of broker")
        bench.send(b"1")
        (delivery,) = take(consumer, 1)
        consumer.settle(delivery, ACK)


@pytest.mark.parametrize(
    "driver", ["memory.MemoryConsumer", "rabbitmq.RabbitMQConsumer", "kafka.KafkaConsumer"]
)
def test_nothing_is_imported_before_open(driver):
    module, _, name = driver.rpartition(".")
    code = f"""
import sys
from inbox.brokers.{module} import {name} as Driver
url = "kafka://h" if "{module}" == "kafka" else "amqp://h//"
Driver("a", url, {{}}, group="g", topics=["t"], prefetch=1)
assert not {{"kombu", "amqp", "confluent_kafka"}} & set(sys.modules), sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("driver", [MemoryConsumer, RabbitMQConsumer, KafkaConsumer])
@pytest.mark.parametrize("options", [{"prefetsch": 1}, {"name": 1, "exchange": 1, "group.id": "x"}])
def test_wrong_options_are_refused_by_name(driver, options):
    if driver is KafkaConsumer and "prefetsch" in options:
        return  # librdkafka refuses what it does not know
    with pytest.raises(InvalidBroker, match="OPTIONS"):
        driver("a", "kafka://h", options, group="g", topics=["t"], prefetch=1)
