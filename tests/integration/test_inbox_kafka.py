"""The Kafka consumer against librdkafka's mock cluster, which fails when it is told to."""

from __future__ import annotations

import time
import uuid

import pytest

from inbox.brokers.kafka import KafkaConsumer
from inbox.delivery import Disposition
from inbox.exceptions import ConsumerUnavailable, InvalidBroker
from tests.mock_kafka import MockKafka

PATIENCE = 20
TOPIC = "orders.placed"
OFFSET_COMMIT = 8
ILLEGAL_GENERATION, NOT_AUTHORIZED = 22, 30


@pytest.fixture
def cluster():
    with MockKafka(TOPIC) as mock:
        yield mock


@pytest.fixture
def consumer(cluster):
    made = make(cluster)
    yield made
    made.close()


def make(cluster, group="g", prefetch=10, **options):
    usual = {
        "bootstrap.servers": cluster.bootstrap,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 200,
        "reconnect.backoff.max.ms": 500,
    }
    return KafkaConsumer(
        "stream", "", usual | options, group=group, topics=[TOPIC], prefetch=prefetch
    )


def send(cluster, *bodies, partition=0):
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    for body in bodies:
        producer.produce(TOPIC, body, partition=partition)
    assert producer.flush(PATIENCE) == 0


def take(consumer, count):
    deadline = time.monotonic() + PATIENCE
    found = []
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} came"
        found += consumer.poll(0.2)
    return found


def poll_on(consumer):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        consumer.poll(0.2)


def committed(consumer):
    from confluent_kafka import TopicPartition

    (place,) = consumer._session._client.committed([TopicPartition(TOPIC, 0)], timeout=PATIENCE)
    return place.offset


def test_only_the_contiguous_done_prefix_is_committed(cluster, consumer):
    consumer.open()
    send(cluster, b"0", b"1", b"2")
    zero, one, two = take(consumer, 3)
    consumer.settle(two, Disposition.ACK)
    consumer.settle(zero, Disposition.ACK)
    consumer.poll(0)
    assert committed(consumer) == 1
    consumer.settle(one, Disposition.ACK)
    consumer.poll(0)
    assert committed(consumer) == 3


def test_retry_drops_what_was_fetched_behind_it_in_its_partition(cluster, consumer):
    consumer.open()
    send(cluster, b"0", b"1", b"2")
    first = take(consumer, 1)[0]
    consumer.settle(first, Disposition.RETRY)
    again = take(consumer, 3)
    assert [delivery.body for delivery in again] == [b"0", b"1", b"2"]
    assert again[0].redelivered


def test_as_many_as_were_in_flight_may_be_repeats_after_an_assignment(cluster):
    consumer = make(cluster, prefetch=2)
    consumer.open()
    send(cluster, b"0", b"1", b"2", b"3")
    flags = []
    for _ in range(4):
        (delivery,) = take(consumer, 1)
        flags.append(delivery.redelivered)
        consumer.settle(delivery, Disposition.ACK)
    consumer.close()
    assert flags == [True, True, False, False]


def test_a_partition_that_moved_is_not_settled_by_its_old_owner(cluster, consumer):
    consumer.open()
    send(cluster, b"0")
    (delivery,) = take(consumer, 1)
    other = make(cluster)
    other.open()
    deadline = time.monotonic() + PATIENCE
    moved = []
    while not moved and time.monotonic() < deadline:
        consumer.poll(0.1)
        moved = other.poll(0.1)
        if not moved and not consumer._session._partitions.get((TOPIC, 0)):
            continue
        if consumer._session._partitions.get((TOPIC, 0)) not in (None, delivery.tag.partition):
            break  # it came back to us in another assignment
    consumer.settle(delivery, Disposition.ACK)
    consumer.close()
    if not moved:
        moved = take(other, 1)
    assert moved[0].body == b"0"
    assert moved[0].redelivered
    other.close()


def test_an_outage_is_said_and_what_was_open_comes_again(cluster, consumer):
    consumer.open()
    send(cluster, b"0", b"1")
    zero, one = take(consumer, 2)
    consumer.settle(zero, Disposition.ACK)
    consumer.poll(0)
    consumer.settle(one, Disposition.ACK)
    cluster.go_down()
    started = time.monotonic()
    with pytest.raises(ConsumerUnavailable):
        poll_on(consumer)
    with pytest.raises(ConsumerUnavailable):
        consumer.open()
    assert time.monotonic() - started < PATIENCE
    cluster.come_up()
    consumer.open()
    again = take(consumer, 1)
    assert again[-1].body == b"1"
    assert again[-1].redelivered


def test_leaving_while_the_broker_is_away_does_not_hang(cluster):
    """librdkafka alone would wait for twice the session's timeout."""
    consumer = make(cluster, **{"session.timeout.ms": 20_000})
    consumer.open()
    send(cluster, b"0")
    (delivery,) = take(consumer, 1)
    consumer.settle(delivery, Disposition.ACK)
    cluster.go_down()
    started = time.monotonic()
    consumer.close()
    assert time.monotonic() - started < 20


def test_a_commit_in_a_rebalance_is_tried_later(cluster, consumer):
    consumer.open()
    send(cluster, b"0")
    (delivery,) = take(consumer, 1)
    consumer.settle(delivery, Disposition.ACK)
    cluster.fail_next(ILLEGAL_GENERATION, request=OFFSET_COMMIT)
    consumer.poll(0)
    deadline = time.monotonic() + PATIENCE
    while committed(consumer) != 1:
        assert time.monotonic() < deadline
        for again in consumer.poll(0.1):
            consumer.settle(again, Disposition.ACK)


def test_no_right_to_the_group_is_for_a_person(cluster, consumer):
    cluster.fail_next(*[NOT_AUTHORIZED] * 20, request=10)
    consumer.open()
    with pytest.raises(InvalidBroker, match="GROUP_AUTHORIZATION_FAILED"):
        poll_on(consumer)


def test_a_dead_letter_that_is_not_confirmed_is_not_settled(cluster):
    consumer = make(cluster, group=uuid.uuid4().hex)
    consumer.open()
    send(cluster, b"0")
    (delivery,) = take(consumer, 1)
    cluster.fail_next(*[44] * 3)  # POLICY_VIOLATION
    with pytest.raises(ConsumerUnavailable, match="dead letter"):
        consumer.settle(delivery, Disposition.DEAD)
    consumer.open()
    assert take(consumer, 1)[0].body == b"0"
    consumer.close()


@pytest.mark.parametrize(
    "options", [{"enable.auto.commit": True}, {"group.id": "other"}, {"bootstrap.servers": ""}]
)
def test_what_is_fixed_or_missing_is_said_at_once(options):
    usual = {"bootstrap.servers": "h"}
    with pytest.raises(InvalidBroker):
        KafkaConsumer("stream", "", usual | options, group="g", topics=["t"], prefetch=1)


def test_what_librdkafka_does_not_know_is_said_at_open(cluster):
    consumer = make(cluster, **{"bootstrap.severs": "h"})
    with pytest.raises(InvalidBroker, match=r"bootstrap\.severs"):
        consumer.open()
