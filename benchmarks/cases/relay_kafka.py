"""The relay to Kafka."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings

from benchmarks import servers
from benchmarks.harness import RATE, Pair, Timing, case, check, timed
from benchmarks.messages import TOLD, messages
from benchmarks.sides import PAGE, drained, one_at_a_time
from outbox.brokers.kafka import KafkaPublisher
from outbox.conf import get_settings
from outbox.relay import Relay
from outbox.wire import Message, to_headers
from outbox.wire.headers import KAFKA_PREFIX

_FLUSH = 30.0


@case(
    needs=["kafka"],
    count=20_000,
    unit=RATE,
    subject="relay",
    baseline="confluent-kafka's idempotent producer with the same options and messages, "
    "delivery callbacks, no database",
)
def relay_kafka(count: int) -> Iterator[Pair]:
    """The relay to Kafka against a bare idempotent producer."""
    with servers.topic() as topic, _relay() as relay:
        producer = _producer()
        yield Pair(
            lambda: drained(relay, topic.name, count, topic.expect),
            lambda: _produced(producer, messages(topic.name, count), topic),
            _told(topic),
        )


@case(
    needs=["kafka"],
    count=20_000,
    unit=RATE,
    subject="relay",
    baseline=(
        f"a relay over the same rows: SELECT a page of {PAGE}, then per message one produce(), "
        "one flush() and one DELETE, autocommitted"
    ),
)
def relay_kafka_vs_one_at_a_time(count: int) -> Iterator[Pair]:
    """The relay to Kafka against a relay that flushes each message."""
    with servers.topic() as topic, _relay() as relay:
        producer = _producer()

        def send(message: Message) -> None:
            _produce(producer, message, [])
            check("messages left after flush()", producer.flush(_FLUSH), 0)

        fewer = max(1, count // 10)
        yield Pair(
            lambda: drained(relay, topic.name, count, topic.expect),
            lambda: one_at_a_time(send, topic.name, fewer, topic.expect),
            _told(topic),
        )


def _produced(producer: Any, batch: Sequence[Message], topic: servers.Topic) -> Timing:
    refused: list[object] = []

    def work() -> None:
        for message in batch:
            _produce(producer, message, refused)
            producer.poll(0)
        producer.flush(_FLUSH)

    timing = timed(len(batch), work)
    check("refused messages", refused, [])
    topic.expect(len(batch))
    return timing


def _produce(producer: Any, message: Message, refused: list[object]) -> None:
    producer.produce(
        message.topic,
        message.body,
        None,
        headers=to_headers(message, KAFKA_PREFIX),
        timestamp=int(message.time.timestamp() * 1000),
        on_delivery=lambda error, _message: refused.append(error) if error else None,
    )


def _producer() -> Any:
    from confluent_kafka import Producer

    return Producer(_options())


def _options() -> dict[str, Any]:
    """Whatever the product gives to librdkafka, so that both sides stay the same."""
    servers_ = {"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS}
    return dict(KafkaPublisher("client", "", servers_)._config)  # noqa: SLF001


def _relay() -> contextlib.closing[Relay]:
    return contextlib.closing(Relay("kafka", "default"))


def _told(topic: servers.Topic) -> dict[str, object]:
    options, outbox = _options(), get_settings()
    return {
        **TOLD,
        "acks": options["acks"],
        "idempotence": options["enable.idempotence"],
        **topic.told(),
        "window": KafkaPublisher("client", "", {"bootstrap.servers": "-"}).window,
        "batch size": outbox.batch_size,
        "lanes": outbox.lanes,
    }
