"""The servers: a database, a queue and a topic of our own, and what they say of themselves."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import kombu
from django.conf import settings
from django.db import connection

from benchmarks.harness import check
from tests.services.kafka import create_topics

VARIABLES: Final = {
    "postgres": "DATABASE_URL",
    "rabbitmq": "RABBITMQ_URL",
    "kafka": "KAFKA_BOOTSTRAP_SERVERS",
}

PARTITIONS: Final = 4
_PATIENCE: Final = 10.0


def absent(needs: tuple[str, ...]) -> list[str]:
    """The environment variables that a case lacks."""
    return [VARIABLES[name] for name in needs if not os.environ.get(VARIABLES[name])]


@contextmanager
def database() -> Iterator[None]:
    """A database with the tables, dropped at the end; the one that the URL names is not touched."""
    before = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        yield
    finally:
        connection.creation.destroy_test_db(before, verbosity=0)


def durability() -> dict[str, str]:
    """What PostgreSQL says of its own."""
    with connection.cursor() as cursor:
        return {name: _show(cursor, name) for name in _DURABILITY}


_DURABILITY: Final = ("fsync", "synchronous_commit", "full_page_writes")


def _show(cursor: Any, name: str) -> str:
    cursor.execute(f"SHOW {name}")
    return str(cursor.fetchone()[0])


def versions() -> dict[str, str | None]:
    """Of the servers that are there."""
    found: dict[str, str | None] = dict.fromkeys(("postgresql", "rabbitmq", "kafka"))
    with connection.cursor() as cursor:
        found["postgresql"] = _show(cursor, "server_version").split()[0]
    if settings.RABBITMQ_URL:
        with kombu.Connection(settings.RABBITMQ_URL) as broker:
            broker.connect()
            found["rabbitmq"] = str(broker.connection.server_properties["version"])
    if settings.KAFKA_BOOTSTRAP_SERVERS:
        # A broker does not tell it to clients; whoever started it may have.
        version = os.environ.get("KAFKA_VERSION", "unknown")
        found["kafka"] = f"{version} ({os.environ.get('KAFKA_KIND', 'given')})"
    return found


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue, bound to our exchange by its topic."""

    name: str
    topic: str
    kind: str
    channel: Any

    def expect(self, count: int) -> None:
        """Raise `Wrong` unless it comes to hold so many messages; then empty it."""
        deadline = time.monotonic() + _PATIENCE
        while (found := self._count()) != count and time.monotonic() < deadline:
            time.sleep(0.05)
        check(f"messages in queue {self.name}", found, count)
        self.channel.queue_purge(self.name)

    def _count(self) -> int:
        return int(self.channel.queue_declare(self.name, passive=True).message_count)


@contextmanager
def queue(kind: str, group: str = "benchmarks") -> Iterator[Queue]:
    """A queue of this kind, named as the inbox's consumer would name it; removed at the end."""
    topic = f"rabbitmq.{uuid.uuid4()}"
    with kombu.Connection(settings.RABBITMQ_URL) as broker:
        channel = broker.channel()
        made = Queue(f"{group}.{topic}", topic, kind, channel)
        channel.exchange_declare(settings.EXCHANGE, "topic", durable=True, auto_delete=False)
        # A broker that cannot do this kind of queue refuses.
        channel.queue_declare(
            made.name, durable=True, auto_delete=False, arguments={"x-queue-type": kind}
        )
        channel.queue_bind(made.name, settings.EXCHANGE, topic)
        try:
            yield made
        finally:
            channel.queue_delete(made.name)
            channel.exchange_delete(settings.EXCHANGE)


class Topic:
    """A topic, and how far it has been counted."""

    def __init__(self, name: str) -> None:
        """A topic that exists."""
        from confluent_kafka import Consumer

        self.name = name
        self._consumer = Consumer(
            {"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, "group.id": name}
        )
        self._counted = self._count()

    def expect(self, count: int) -> None:
        """Raise `Wrong` unless so many messages were added since the last call."""
        found = self._count()
        check(f"messages in topic {self.name}", found - self._counted, count)
        self._counted = found

    def told(self) -> dict[str, object]:
        """What the cluster says of it."""
        partitions = self._consumer.list_topics(self.name, timeout=_PATIENCE).topics[self.name]
        copies = {len(each.replicas) for each in partitions.partitions.values()}
        return {
            "partitions": len(partitions.partitions),
            "replication": max(copies),
            **_topic_settings(self.name),
        }

    def close(self) -> None:
        """Let the consumer go."""
        self._consumer.close()

    def _count(self) -> int:
        return sum(self._end(number) for number in range(PARTITIONS))

    def _end(self, number: int) -> int:
        from confluent_kafka import KafkaException, TopicPartition

        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                partition = TopicPartition(self.name, number)
                return int(self._consumer.get_watermark_offsets(partition, _PATIENCE)[1])
            except KafkaException:
                # A new partition's leader may not know yet that it is one.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def _topic_settings(name: str) -> dict[str, str]:
    """Nothing on librdkafka's mock cluster, which does not answer this."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, ConfigResource

    admin = AdminClient({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, "log_level": 0})
    asked = ConfigResource(ConfigResource.Type.TOPIC, name)
    with suppress(KafkaException):
        answer = admin.describe_configs([asked], request_timeout=3)[asked].result(5)
        return {key: answer[key].value for key in ("min.insync.replicas", "flush.messages")}
    return {}


@contextmanager
def topic() -> Iterator[Topic]:
    """A new topic; removed at the end."""
    from confluent_kafka.admin import AdminClient

    name = f"kafka.{uuid.uuid4()}"
    create_topics(settings.KAFKA_BOOTSTRAP_SERVERS, [name], PARTITIONS)
    made = Topic(name)
    try:
        yield made
    finally:
        made.close()
        admin = AdminClient({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, "log_level": 0})
        with suppress(Exception):  # the mock cluster removes nothing
            admin.delete_topics([name], request_timeout=3)[name].result(5)
