"""The contract of `outbox.brokers.base.Publisher`, stated once and held by every driver."""

from __future__ import annotations

import contextlib
import datetime as dt
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from outbox.brokers import Confirm, Publisher, Status, publishers
from outbox.brokers.kafka import KafkaPublisher
from outbox.brokers.memory import MemoryPublisher
from outbox.brokers.rabbitmq import RabbitMQPublisher
from outbox.exceptions import BrokerError, BrokerUnavailable, InvalidBroker
from outbox.runtime import hub
from outbox.wire import Message, from_headers
from tests.forked import in_child
from tests.services.kafka import create_topics

PATIENCE = 10

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")


@dataclass(frozen=True)
class Bench:
    """A broker as a contract test needs it."""

    make: Callable[[], Publisher]
    """A new publisher whose messages of ``topic`` reach somebody."""
    topic: str
    received: Callable[[int], list[Message]]
    """What a consumer of the topic gets: at least so many messages."""

    def message(self, number: int = 0, **changes) -> Message:
        fields = {
            "id": uuid.uuid4(),
            "topic": self.topic,
            "body": b'{"number":%d}' % number,
            "source": "/shop",
            "time": dt.datetime(2026, 11, 23, 12, 0, 0, number, tzinfo=dt.UTC),
        }
        return Message(**(fields | changes))


@pytest.fixture
def memory() -> Iterator[Bench]:
    name = uuid.uuid4().hex
    place = hub.get(name)

    def received(count: int) -> list[Message]:
        return [from_headers(record.headers, record.body) for record in place.records("t")]

    yield Bench(lambda: MemoryPublisher("default", "", {"name": name}), "t", received)
    place.clear()


@pytest.fixture
def rabbitmq(rabbitmq_url: str) -> Iterator[Bench]:
    import kombu

    exchange = f"contract.{uuid.uuid4()}"
    with kombu.Connection(rabbitmq_url) as connection, connection.channel() as channel:

        def make() -> Publisher:
            return RabbitMQPublisher("default", rabbitmq_url, {"exchange": exchange})

        def received(count: int) -> list[Message]:
            got = iter(lambda: channel.basic_get(exchange, no_ack=True), None)
            return [_from_rabbitmq(each) for each in got]

        first = make()
        first.open()
        first.close()
        channel.queue_declare(exchange, durable=True, auto_delete=False)
        channel.queue_bind(exchange, exchange, "t")
        yield Bench(make, "t", received)
        channel.queue_delete(exchange)
        channel.exchange_delete(exchange)


def _from_rabbitmq(message) -> Message:
    properties = message.properties
    fields = {**properties["application_headers"], "content-type": properties["content_type"]}
    # py-amqp gives an empty body as text.
    return from_headers(fields, message.body or b"")


@pytest.fixture
def kafka(kafka_bootstrap: str) -> Bench:
    from confluent_kafka import Consumer

    servers = {"bootstrap.servers": kafka_bootstrap}
    topic = f"contract.{uuid.uuid4()}"
    create_topics(kafka_bootstrap, [topic])

    def received(count: int) -> list[Message]:
        consumer = Consumer(servers | {"group.id": topic, "auto.offset.reset": "earliest"})
        consumer.subscribe([topic])
        got = [_from_kafka(each) for each in consumer.consume(count, timeout=PATIENCE)]
        consumer.close()
        return got

    return Bench(lambda: KafkaPublisher("stream", "", servers), topic, received)


def _from_kafka(message) -> Message:
    fields = {name: value.decode() for name, value in message.headers()}
    assert message.key() == (fields.get("ce_partitionkey", "").encode() or None)
    return from_headers(fields, message.value())


BROKERS = [
    "memory",
    pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
    pytest.param("kafka", marks=pytest.mark.kafka_any),
]


@pytest.fixture(params=BROKERS)
def bench(request) -> Bench:
    return request.getfixturevalue(request.param)


@pytest.fixture
def publisher(bench: Bench) -> Iterator[Publisher]:
    with contextlib.closing(bench.make()) as publisher:
        publisher.open()
        yield publisher


def collect(publisher: Publisher, count: int) -> list[Confirm]:
    answers: list[Confirm] = []
    while len(answers) < count:
        more = publisher.confirms(PATIENCE)
        assert more, f"only {len(answers)} of {count} answers came"
        answers += more
    return answers


def test_each_submission_gets_one_answer_and_arrives_as_it_was(bench, publisher) -> None:
    messages = [bench.message(number, headers={"trace": f"t{number}"}) for number in range(100)]
    messages.append(bench.message(key="customer-ä"))
    messages.append(bench.message(content_type="image/png", body=b"\x89PNG\x00"))
    messages.append(bench.message(body=b""))
    for message in messages:
        publisher.submit(message, {})
    answers = collect(publisher, len(messages))
    assert sorted(each.message_id for each in answers) == sorted(each.id for each in messages)
    assert {each.status for each in answers} == {Status.ACKED}
    assert publisher.confirms(0) == []
    arrived = {message.id: message for message in bench.received(len(messages))}
    assert arrived == {message.id: message for message in messages}


def test_a_window_is_answered_in_fewer_calls_than_messages(bench, publisher) -> None:
    assert publisher.window >= 1000
    for number in range(1000):
        publisher.submit(bench.message(number), {})
    calls = answered = 0
    while answered < 1000:
        calls, answered = calls + 1, answered + len(publisher.confirms(PATIENCE))
    assert answered == 1000
    assert calls < 500


def test_confirms_waits_as_long_as_it_was_told(publisher) -> None:
    began = time.monotonic()
    assert publisher.confirms(0) == []
    assert publisher.confirms(0.1) == []
    assert time.monotonic() - began < 1


def test_open_again_keeps_what_is_in_flight(bench, publisher) -> None:
    message = bench.message()
    publisher.submit(message, {})
    publisher.open()
    assert collect(publisher, 1) == [Confirm(message.id, Status.ACKED)]


def test_close_forgets_what_is_in_flight(bench, publisher) -> None:
    publisher.submit(bench.message(), {})
    publisher.close()
    publisher.close()
    with pytest.raises(BrokerUnavailable):
        publisher.submit(bench.message(), {})
    with pytest.raises(BrokerUnavailable):
        publisher.confirms(0)
    publisher.open()
    again = bench.message()
    publisher.submit(again, {})
    assert collect(publisher, 1) == [Confirm(again.id, Status.ACKED)]


def test_nothing_works_before_open(bench) -> None:
    publisher = bench.make()
    with pytest.raises(BrokerUnavailable):
        publisher.submit(bench.message(), {})
    with pytest.raises(BrokerUnavailable):
        publisher.confirms(0)
    publisher.close()


@pytest.mark.parametrize("use", ["open", "submit", "confirms"])
def test_a_forked_child_is_refused_and_the_parent_unharmed(bench, publisher, use) -> None:
    message = bench.message()
    actions = {
        "open": publisher.open,
        "submit": lambda: publisher.submit(message, {}),
        "confirms": lambda: publisher.confirms(0),
    }
    assert in_child(actions[use]).startswith("BrokerError: The publisher of broker")
    assert in_child(publisher.close) == "None"
    publisher.submit(message, {})
    assert collect(publisher, 1) == [Confirm(message.id, Status.ACKED)]


def test_another_thread_is_refused(bench, publisher) -> None:
    caught: list[BrokerError] = []

    def use() -> None:
        try:
            publisher.submit(bench.message(), {})
        except BrokerError as error:
            caught.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert "another thread" in str(caught[0])


@pytest.mark.parametrize("driver", ["memory", "rabbitmq", "kafka"])
def test_nothing_is_imported_before_open(driver) -> None:
    name = {"memory": "Memory", "rabbitmq": "RabbitMQ", "kafka": "Kafka"}[driver] + "Publisher"
    code = f"""
import sys
from django.conf import settings
settings.configure(OUTBOX={{"SOURCE": "/", "BROKERS": {{"default": {{
    "BACKEND": "outbox.brokers.{driver}.{name}",
    "URL": "{"amqp://h/" if driver == "rabbitmq" else "kafka://h:9092"}",
}}}}}})
from outbox.brokers import publishers
publishers["default"]
sys.exit(str([m for m in ("amqp", "kombu", "confluent_kafka") if m in sys.modules] or ""))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stderr.strip(), done.returncode) == ("", 1)


class TestPublishersByAlias:
    @pytest.fixture(autouse=True)
    def brokers(self, settings) -> Iterator[None]:
        settings.OUTBOX = {
            "SOURCE": "/shop",
            "BROKERS": {
                "default": {"BACKEND": "outbox.brokers.memory.MemoryPublisher"},
                "stream": {"BACKEND": "outbox.brokers.memory.MemoryPublisher"},
                "absent": {"BACKEND": "outbox.brokers.nowhere.Publisher"},
                "other": {"BACKEND": "outbox.wire.Message"},
                "typo": {
                    "BACKEND": "outbox.brokers.memory.MemoryPublisher",
                    "OPTIONS": {"nmae": "x"},
                },
                "rabbit": {
                    "BACKEND": "outbox.brokers.rabbitmq.RabbitMQPublisher",
                    "URL": "amqp://localhost/",
                },
            },
        }
        publishers.close_all()
        yield
        publishers.close_all()

    def test_an_alias_has_one_publisher_in_a_thread(self) -> None:
        mine = publishers["default"]
        assert publishers["default"] is mine
        assert publishers["stream"] is not mine
        others: list[Publisher] = []
        thread = threading.Thread(target=lambda: others.append(publishers["default"]))
        thread.start()
        thread.join()
        assert others[0] is not mine

    def test_a_child_gets_one_of_its_own(self) -> None:
        def use() -> None:
            publishers["default"].open()

        use()
        assert in_child(use) == "None"

    def test_other_settings_make_another_one(self, settings) -> None:
        mine = publishers["default"]
        mine.open()
        settings.OUTBOX = dict(settings.OUTBOX, SOURCE="/other")
        assert publishers["default"] is not mine
        with pytest.raises(BrokerUnavailable):
            mine.confirms(0)

    def test_close_all_closes_and_forgets(self) -> None:
        mine = publishers["default"]
        mine.open()
        publishers.close_all()
        with pytest.raises(BrokerUnavailable):
            mine.confirms(0)
        assert publishers["default"] is not mine

    @pytest.mark.parametrize(
        ("alias", "text"),
        [
            ("steam", r"'steam' is not in OUTBOX\['BROKERS'\]\. Did you mean 'stream'\?"),
            ("zzz", "Known: default, stream"),
            ("absent", "cannot be imported: No module named 'outbox.brokers.nowhere'"),
            ("other", "is no subclass of outbox.brokers.Publisher"),
            ("typo", "Did you mean 'name'"),
        ],
    )
    def test_a_wrong_alias_is_refused(self, alias, text) -> None:
        with pytest.raises(InvalidBroker, match=text):
            publishers[alias]

    def test_a_missing_client_is_named_with_its_remedy(self, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "kombu", None)
        with pytest.raises(InvalidBroker, match=r'pip install "django-outbox-inbox\[rabbitmq\]"'):
            publishers["rabbit"]
