"""The Kafka publisher against librdkafka's mock cluster, which fails when it is told to."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import socket
import time
import uuid
from collections.abc import Iterator

import pytest

from outbox.brokers.base import Confirm, Status
from outbox.brokers.kafka import KafkaPublisher
from outbox.exceptions import BrokerMisconfigured, BrokerUnavailable, InvalidBroker
from outbox.wire import Message
from tests.forked import in_child
from tests.mock_kafka import MockKafka

PATIENCE = 10
TOPIC, OTHER = "orders.placed", "orders.paid"

MESSAGE_TOO_LARGE, OUT_OF_ORDER, POLICY, INVALID_RECORD, NOT_AUTHORIZED = 10, 45, 44, 87, 29

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")


@pytest.fixture(scope="module")
def cluster() -> Iterator[MockKafka]:
    with MockKafka(TOPIC, OTHER) as mock:
        yield mock


@pytest.fixture
def faulty() -> Iterator[MockKafka]:
    """A cluster of its own, for a test that leaves damage."""
    with MockKafka(TOPIC, OTHER) as mock:
        yield mock


@contextlib.contextmanager
def opened(cluster: MockKafka, **options: object) -> Iterator[KafkaPublisher]:
    given = {key.replace("_", "."): value for key, value in options.items()}
    publisher = KafkaPublisher("stream", "", {"bootstrap.servers": cluster.bootstrap, **given})
    with contextlib.closing(publisher):
        publisher.open()
        yield publisher


def message(**changes) -> Message:
    fields = {
        "id": uuid.uuid4(),
        "topic": TOPIC,
        "body": b"{}",
        "source": "/shop",
        "time": dt.datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=dt.UTC),
    }
    return Message(**(fields | changes))


def send(publisher: KafkaPublisher, *messages: Message) -> dict[uuid.UUID, Confirm]:
    """Submit and collect until each has its answer."""
    for each in messages:
        publisher.submit(each, {})
    answers: list[Confirm] = []
    while len(answers) < len(messages):
        more = publisher.confirms(PATIENCE)
        assert more, "an answer is missing"
        answers += more
    assert len(answers) == len(messages)
    return {answer.message_id: answer for answer in answers}


def stored(cluster: MockKafka, topic: str) -> list:
    """All records of a topic."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "test"})
    records = []
    for partition in range(4):
        place = TopicPartition(topic, partition, 0)
        _, end = consumer.get_watermark_offsets(place, timeout=PATIENCE)
        consumer.assign([place])
        while end and (
            not records or records[-1].partition() != partition or records[-1].offset() < end - 1
        ):
            records += consumer.consume(end, timeout=0.2)
    consumer.close()
    return records


def test_a_record_is_keyed_timed_and_placed_as_by_the_java_client(faulty) -> None:
    keyed, plain = message(key="foobar"), message()
    with opened(faulty) as publisher:
        send(publisher, keyed, plain)
    by_id = {dict(each.headers())["ce_id"].decode(): each for each in stored(faulty, TOPIC)}
    # murmur2("foobar") is -790332482 in Kafka's own tests (UtilsTest.testMurmur2), F10.
    assert by_id[str(keyed.id)].partition() == (-790332482 & 0x7FFFFFFF) % 4
    assert by_id[str(keyed.id)].key() == b"foobar"
    assert by_id[str(plain.id)].key() is None
    assert by_id[str(plain.id)].timestamp()[1] == 1795435200123
    assert dict(by_id[str(plain.id)].headers())["content-type"] == b"application/json"


def test_f1_a_child_neither_sends_nor_waits(cluster) -> None:
    with opened(cluster) as publisher:
        sent = message()
        began = time.monotonic()
        assert "child" in in_child(lambda: publisher.submit(sent, {}))
        assert in_child(publisher.close) == "None"
        assert time.monotonic() - began < 1
        assert send(publisher, sent)[sent.id].status is Status.ACKED


def test_f3_a_timeout_is_no_verdict_since_the_record_may_be_there(faulty) -> None:
    late = message()
    with opened(faulty, message_timeout_ms=1500) as publisher:
        send(publisher, message())
        faulty.delay_answers(4000)
        answer = send(publisher, late)[late.id]
    assert answer.status is Status.UNKNOWN
    assert "_MSG_TIMED_OUT" in answer.reason
    faulty.delay_answers(0)
    assert str(late.id).encode() in {
        dict(each.headers())["ce_id"] for each in stored(faulty, TOPIC)
    }


def test_f3_a_cluster_that_goes_down_is_unavailable_until_it_is_back(faulty, caplog) -> None:
    with opened(faulty) as publisher:
        send(publisher, message())
        faulty.go_down()
        with pytest.raises(BrokerUnavailable, match="brokers are down"):
            publisher.confirms(PATIENCE)
        with pytest.raises(BrokerUnavailable, match="not connected"):
            publisher.submit(message(), {})
        with pytest.raises(BrokerUnavailable, match="refused"):
            publisher.open()
        faulty.come_up()
        publisher.open()
        again = message()
        assert send(publisher, again)[again.id].status is Status.ACKED
    # What librdkafka has to say goes where the application wants its log.
    assert {record.name for record in caplog.records} == {"outbox.brokers.kafka"}


def test_f4_a_fatal_error_ends_the_producer_and_confirms_nothing(faulty) -> None:
    with opened(faulty) as publisher:
        send(publisher, message(key="k"))
        faulty.fail_next(OUT_OF_ORDER)
        for _ in range(3):
            publisher.submit(message(key="k"), {})
        statuses: set[Status] = set()
        with pytest.raises(BrokerUnavailable, match="sequence"):
            _until_it_fails(publisher, statuses)
        assert Status.ACKED not in statuses
        publisher.open()
        again = message(key="k")
        assert send(publisher, again)[again.id].status is Status.ACKED


def test_f4_produce_too_says_that_the_producer_is_dead(faulty) -> None:
    with opened(faulty) as publisher:
        send(publisher, message(key="k"))
        faulty.fail_next(OUT_OF_ORDER)
        with pytest.raises(BrokerUnavailable, match="Fatal error"):
            _submit_until_it_fails(publisher)
        with pytest.raises(BrokerUnavailable, match="not connected"):
            publisher.confirms(0)


def _submit_until_it_fails(publisher: KafkaPublisher) -> None:
    """Without a look at the answers, where the error would show first."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        publisher.submit(message(key="k"), {})
        time.sleep(0.005)


def _until_it_fails(publisher: KafkaPublisher, statuses: set[Status]) -> None:
    while True:
        statuses |= {answer.status for answer in publisher.confirms(PATIENCE)}


def test_f5_a_topic_that_is_not_ours_is_refused_and_others_go_on(faulty) -> None:
    refused, raised, fine = message(), message(), message(topic=OTHER)
    with opened(faulty) as publisher:
        send(publisher, message())
        faulty.fail_next(NOT_AUTHORIZED)
        answer = send(publisher, refused)[refused.id]
        assert (answer.status, answer.reason.split(":")[0]) == (
            Status.NACKED,
            "TOPIC_AUTHORIZATION_FAILED",
        )
        # The error sticks to the topic: produce() itself now raises.
        answers = send(publisher, raised, fine)
        assert answers[raised.id].status is Status.NACKED
        assert answers[fine.id].status is Status.ACKED


@pytest.mark.parametrize("code", [MESSAGE_TOO_LARGE, POLICY, INVALID_RECORD])
def test_f8_what_the_broker_refuses_is_the_messages_fault(cluster, code) -> None:
    refused, fine = message(), message()
    with opened(cluster) as publisher:
        send(publisher, message())
        cluster.fail_next(code)
        assert send(publisher, refused)[refused.id].status is Status.NACKED
        assert send(publisher, fine)[fine.id].status is Status.ACKED


def test_f8_what_the_client_refuses_is_the_messages_fault(cluster) -> None:
    large, fine = message(body=b"x" * 2_000_000), message()
    with opened(cluster) as publisher:
        answers = send(publisher, large, fine)
    assert answers[large.id].status is Status.NACKED
    assert "MSG_SIZE_TOO_LARGE" in answers[large.id].reason
    assert answers[fine.id].status is Status.ACKED


def test_f9_a_full_queue_loses_nothing(cluster) -> None:
    messages = [message() for _ in range(200)]
    with opened(cluster, queue_buffering_max_messages=10) as publisher:
        answers = send(publisher, *messages)
    assert {answer.status for answer in answers.values()} == {Status.ACKED}


def test_f9_a_queue_that_stays_full_is_given_up(faulty, settings) -> None:
    settings.OUTBOX = settings.OUTBOX | {"CONFIRM_TIMEOUT": dt.timedelta(seconds=0.3)}
    with opened(faulty, queue_buffering_max_messages=1) as publisher:
        send(publisher, message())
        faulty.delay_answers(PATIENCE * 1000)
        publisher.submit(message(), {})
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="Queue full"):
            publisher.submit(message(), {})
        assert 0.3 <= time.monotonic() - began < 2


def test_f11_an_unknown_topic_is_returned_and_not_made(cluster) -> None:
    lost, fine = message(topic="orders.plcaed"), message()
    with opened(cluster) as publisher:
        answers = send(publisher, lost, fine)
        assert answers[lost.id].status is Status.RETURNED
        assert answers[fine.id].status is Status.ACKED
        # Known to be unknown, the topic is now refused by produce() itself.
        again = message(topic="orders.plcaed")
        assert send(publisher, again)[again.id].status is Status.RETURNED


@pytest.mark.parametrize("topic", ["x" * 40_000, "nul\0"])
def test_a_topic_that_cannot_be_sent_is_the_messages_fault(cluster, topic) -> None:
    with opened(cluster) as publisher:
        bad = message(topic=topic)
        assert send(publisher, bad)[bad.id].status is Status.NACKED


def test_nothing_is_sent_after_close(faulty) -> None:
    with opened(faulty, linger_ms=300) as publisher:
        publisher.submit(message(key="k"), {})
    kept = message(key="k")
    with opened(faulty, linger_ms=300) as publisher:
        send(publisher, kept)
    assert [dict(each.headers())["ce_id"] for each in stored(faulty, TOPIC)] == [
        str(kept.id).encode()
    ]


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    publisher = KafkaPublisher("stream", f"kafka://127.0.0.1:{port}", {})
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"'stream'.*refused"):
        publisher.open()
    assert time.monotonic() - began < 3


def test_librdkafka_judges_its_own_options(cluster) -> None:
    publisher = KafkaPublisher(
        "stream", "", {"bootstrap.servers": cluster.bootstrap, "linger.msec": 5}
    )
    with pytest.raises(BrokerMisconfigured, match=r'No such configuration property: "linger.msec"'):
        publisher.open()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "names no servers"),
        ({"bootstrap.servers": "h:1", "window": "many"}, "like its default, 10000"),
        ({"bootstrap.servers": "h:1", "message.timeout.ms": 15_000}, "less than LEASE"),
        ({"bootstrap.servers": "h:1", "delivery.timeout.ms": "0"}, "more than 0"),
        ({"bootstrap.servers": "h:1", "message.timeout.ms": "soon"}, "not 'soon'"),
    ],
)
def test_wrong_options_are_refused(options, text) -> None:
    with pytest.raises(InvalidBroker, match=text):
        KafkaPublisher("stream", "", options)


def test_the_log_is_quiet_while_all_is_well(cluster, caplog) -> None:
    caplog.set_level(logging.WARNING)
    with opened(cluster) as publisher:
        send(publisher, message())
    assert caplog.records == []
