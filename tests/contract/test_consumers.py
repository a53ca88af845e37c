"""Every driver of ours keeps the contract of a consumer."""

from __future__ import annotations

import time
import urllib.parse
import uuid
from collections.abc import Iterator

import pytest

from inbox.brokers.kafka import KafkaConsumer
from inbox.brokers.memory import MemoryConsumer
from inbox.brokers.rabbitmq import RabbitMQConsumer
from inbox.testing import ConsumerContract
from inbox.testing.consumer_bench import ConsumerBench
from outbox.runtime import hub
from tests.mock_kafka import MockKafka
from tests.proxy import Proxy
from tests.services.kafka import create_topics


class TestMemory(ConsumerContract):
    retries_first = True
    option = "name"

    @pytest.fixture(autouse=True)
    def hub(self) -> Iterator[None]:
        self.name = uuid.uuid4().hex
        yield
        hub.get(self.name).clear()

    def consumer(self, prefetch=10):
        usual = {"group": "g", "topics": [self.topic], "prefetch": prefetch}
        return MemoryConsumer("default", "", {"name": self.name}, **usual)

    def unreachable(self):
        return None

    def publish(self, headers, body):
        hub.get(self.name).append(hub.Record(self.topic, headers, body))

    def dead_letters(self, count):
        return [record.body for record in hub.get(self.name).dead]


@pytest.mark.rabbitmq
class TestRabbitMQ(ConsumerContract):
    """With quorum queues, the default."""

    option = "exchange"
    client_modules = ("amqp", "kombu")
    queue_type = "quorum"

    @pytest.fixture(autouse=True)
    def broker(self, rabbitmq_url) -> Iterator[None]:
        import kombu

        self.group = f"contract-{uuid.uuid4().hex}"
        parts = urllib.parse.urlsplit(rabbitmq_url)
        with (
            Proxy(parts.hostname, parts.port) as self.proxy,
            kombu.Connection(rabbitmq_url) as connection,
            connection.channel() as self.channel,
        ):
            self.url = rabbitmq_url.replace(f":{parts.port}", f":{self.proxy.port}")
            yield
            for queue in (f"{self.group}.{self.topic}", f"{self.group}.dead"):
                self.channel.queue_delete(queue)
            for exchange in (self.group, f"{self.group}.dlx"):
                self.channel.exchange_delete(exchange)

    def consumer(self, prefetch=10):
        return self._consumer(self.url, prefetch)

    def unreachable(self):
        return self._consumer("amqp://guest:guest@127.0.0.1:1//", 10)

    def publish(self, headers, body):
        import amqp

        fields = dict(headers)
        content_type = fields.pop("content-type", None)
        properties = {"content_type": content_type} if content_type else {}
        message = amqp.Message(body, application_headers=fields, **properties)
        self.channel.basic_publish(message, exchange=self.group, routing_key=self.topic)

    def dead_letters(self, count):
        # Dead-lettering is done behind the reject.
        deadline = time.monotonic() + self.patience
        found: list[bytes] = []
        while len(found) < count and time.monotonic() < deadline:
            if (got := self.channel.basic_get(f"{self.group}.dead", no_ack=True)) is not None:
                found.append(got.body)
            else:
                time.sleep(0.02)
        return found

    def cut(self):
        self.proxy.cut()
        return True

    def restore(self):
        self.proxy.restore()

    def _consumer(self, url, prefetch):
        options = {"exchange": self.group, "queue_type": self.queue_type}
        usual = {"group": self.group, "topics": [self.topic], "prefetch": prefetch}
        return RabbitMQConsumer("default", url, options, **usual)


class TestRabbitMQWithClassicQueues(TestRabbitMQ):
    queue_type = "classic"


class Kafka(ConsumerBench):
    prefix = "ce_"
    retries_first = True
    option = "dead_letter_topic"
    forwards_options = True
    client_modules = ("confluent_kafka",)
    patience = 40.0  # the mock cluster lets a third member in after 20 s, if the machine is busy

    def begin(self, servers) -> None:
        from confluent_kafka import Producer

        self.servers = servers
        self.producer = Producer({"bootstrap.servers": servers, "log_level": 0})

    def consumer(self, prefetch=10):
        return self._consumer(f"kafka://{self.servers}", prefetch)

    def unreachable(self):
        return self._consumer("kafka://127.0.0.1:1", 10)

    def publish(self, headers, body):
        self.producer.produce(self.topic, body, headers=list(headers.items()), partition=0)
        assert self.producer.flush(self.patience) == 0

    def dead_letters(self, count):
        from confluent_kafka import Consumer

        config = {"bootstrap.servers": self.servers, "auto.offset.reset": "earliest"}
        reader = Consumer(config | {"group.id": uuid.uuid4().hex})
        reader.subscribe([f"{self.group}.dead"])
        got = reader.consume(count, self.patience)
        reader.close()
        return [message.value() for message in got]

    def _consumer(self, url, prefetch):
        quick = {
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 200,
            "reconnect.backoff.max.ms": 500,
            "log_level": 2,
        }
        usual = {"group": self.group, "topics": [self.topic], "prefetch": prefetch}
        return KafkaConsumer("default", url, quick, **usual)


@pytest.mark.kafka_any
class TestKafka(Kafka, ConsumerContract):
    """Real Kafka, where the environment names one."""

    @pytest.fixture(autouse=True)
    def broker(self, kafka_bootstrap) -> None:
        self.group, self.topic = f"contract-{uuid.uuid4().hex}", f"t-{uuid.uuid4().hex}"
        create_topics(kafka_bootstrap, [self.topic, f"{self.group}.dead"])
        self.begin(kafka_bootstrap)


class TestKafkaThatGoesDown(Kafka):
    """librdkafka's mock cluster, in a process of its own; its groups take long to form."""

    group = "contract"
    test_it_is_unavailable_until_it_is_opened_again = (
        ConsumerContract.test_a_lost_connection_is_unavailable_until_it_is_opened_again
    )

    @pytest.fixture(autouse=True)
    def cluster(self) -> Iterator[None]:
        with MockKafka(self.topic, f"{self.group}.dead") as self.mock:
            self.begin(self.mock.bootstrap)
            yield

    def cut(self):
        self.mock.go_down()
        return True

    def restore(self):
        self.mock.come_up()
