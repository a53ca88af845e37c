"""Every driver of ours keeps the contract of a publisher."""

from __future__ import annotations

import json
import urllib.parse
import uuid
from collections.abc import Iterator

import pytest

from outbox.brokers.console import ConsolePublisher
from outbox.brokers.kafka import KafkaPublisher
from outbox.brokers.memory import MemoryPublisher
from outbox.brokers.rabbitmq import RabbitMQPublisher
from outbox.runtime import hub
from outbox.testing import PublisherContract
from outbox.wire import Message, from_headers
from tests.mock_kafka import MockKafka
from tests.proxy import Proxy
from tests.services.kafka import create_topics


class TestMemory(PublisherContract):
    option = "name"

    @pytest.fixture(autouse=True)
    def hub(self) -> Iterator[None]:
        self.name = uuid.uuid4().hex
        yield
        hub.get(self.name).clear()

    def publisher(self):
        return MemoryPublisher("default", "", {"name": self.name})

    def unreachable(self):
        return None

    def received(self, topic, count):
        records = hub.get(self.name).records(topic)
        return [from_headers(record.headers, record.body) for record in records]


class TestConsole(PublisherContract):
    option = "pretty"

    @pytest.fixture(autouse=True)
    def screen(self, capsys) -> None:
        self.capsys = capsys
        self.lines: list[str] = []

    def publisher(self):
        return ConsolePublisher("default", "", {"pretty": False})

    def unreachable(self):
        return None

    def received(self, topic, count):
        self.lines += self.capsys.readouterr().out.splitlines()
        shown = [record for record in map(json.loads, self.lines) if record["topic"] == topic]
        return [
            from_headers(record["headers"], record["body"].encode("utf-8", "surrogateescape"))
            for record in shown
        ]


@pytest.mark.rabbitmq
class TestRabbitMQ(PublisherContract):
    """The queue is of the server's default type, classic."""

    reports_unroutable = True
    option = "exchange"
    client_modules = ("amqp", "kombu")
    queue_type = "classic"

    @pytest.fixture(autouse=True)
    def broker(self, rabbitmq_url) -> Iterator[None]:
        import kombu

        self.exchange = f"contract.{uuid.uuid4()}"
        parts = urllib.parse.urlsplit(rabbitmq_url)
        with (
            Proxy(parts.hostname, parts.port) as self.proxy,
            kombu.Connection(rabbitmq_url) as connection,
            connection.channel() as self.channel,
        ):
            self.url = rabbitmq_url.replace(f":{parts.port}", f":{self.proxy.port}")
            durable = {"durable": True, "auto_delete": False}
            self.channel.exchange_declare(self.exchange, type="topic", **durable)
            queues = [self._queue(topic) for topic in (self.topic, self.other_topic)]
            for queue, topic in zip(queues, (self.topic, self.other_topic), strict=True):
                arguments = {"x-queue-type": self.queue_type}
                self.channel.queue_declare(queue, arguments=arguments, **durable)
                self.channel.queue_bind(queue, self.exchange, topic)
            yield
            for queue in queues:
                self.channel.queue_delete(queue)
            self.channel.exchange_delete(self.exchange)

    def publisher(self):
        return RabbitMQPublisher("default", self.url, {"exchange": self.exchange})

    def unreachable(self):
        return RabbitMQPublisher("default", "amqp://guest:guest@127.0.0.1:1//", {})

    def address(self, topic):
        return {"routing_key": topic}

    def received(self, topic, count):
        got = iter(lambda: self.channel.basic_get(self._queue(topic), no_ack=True), None)
        return [_from_rabbitmq(each) for each in got]

    def cut(self):
        self.proxy.cut()
        return True

    def restore(self):
        self.proxy.restore()

    def _queue(self, topic):
        return f"{self.exchange}.{topic}"


class TestRabbitMQWithQuorumQueues(TestRabbitMQ):
    queue_type = "quorum"


def _from_rabbitmq(message) -> Message:
    properties = message.properties
    fields = {**properties["application_headers"], "content-type": properties["content_type"]}
    fields.pop("x-delivery-count", None)  # in it a quorum queue counts
    # py-amqp gives an empty body as text.
    return from_headers(fields, message.body or b"")


class Kafka(PublisherContract):
    reports_unroutable = True
    forwards_options = True
    client_modules = ("confluent_kafka",)

    def publisher(self):
        return KafkaPublisher("stream", "", {"bootstrap.servers": self.servers})

    def unreachable(self):
        return KafkaPublisher("stream", "kafka://127.0.0.1:1", {})

    def received(self, topic, count):
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "contract"})
        numbers = consumer.list_topics(topic, self.patience).topics[topic].partitions
        places = [TopicPartition(topic, number, 0) for number in numbers]
        ends = [consumer.get_watermark_offsets(place, self.patience)[1] for place in places]
        consumer.assign(places)
        got = consumer.consume(sum(ends), timeout=self.patience)
        consumer.close()
        return [_from_kafka(each) for each in got]


def _from_kafka(message) -> Message:
    assert message.error() is None, message.error()
    fields = {name: value.decode() for name, value in message.headers()}
    assert message.key() == (fields.get("ce_partitionkey", "").encode() or None)
    return from_headers(fields, message.value())


@pytest.mark.kafka_any
class TestKafka(Kafka):
    """Real Kafka, where the environment names one."""

    @pytest.fixture(autouse=True)
    def broker(self, kafka_bootstrap) -> None:
        self.servers = kafka_bootstrap
        suffix = uuid.uuid4()
        self.topic, self.other_topic = f"orders.{suffix}", f"mail.{suffix}"
        create_topics(kafka_bootstrap, [self.topic, self.other_topic])


class TestKafkaThatGoesDown(Kafka):
    """librdkafka's mock cluster, in a process of its own."""

    @pytest.fixture(autouse=True)
    def cluster(self) -> Iterator[None]:
        with MockKafka(self.topic, self.other_topic) as self.mock:
            self.servers = self.mock.bootstrap
            yield

    def cut(self):
        self.mock.go_down()
        return True

    def restore(self):
        self.mock.come_up()
