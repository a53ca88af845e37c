"""The relay to RabbitMQ."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import kombu
from django.conf import settings

from benchmarks import servers
from benchmarks.harness import RATE, Pair, case
from benchmarks.messages import TOLD, messages
from benchmarks.sides import PAGE, drained, one_at_a_time, published
from outbox.brokers.rabbitmq import RabbitMQPublisher
from outbox.conf import get_settings
from outbox.relay import Relay
from outbox.wire import Message, to_headers
from outbox.wire.headers import RABBITMQ_PREFIX

_CLIENT = "the same publisher, the same confirmed messages, no database"


@case(needs=["rabbitmq"], count=10_000, unit=RATE, subject="relay", baseline=_CLIENT)
def relay_rabbitmq(count: int) -> Iterator[Pair]:
    """The relay to a quorum queue against its client alone."""
    yield from _against_client("quorum", count)


@case(needs=["rabbitmq"], count=10_000, unit=RATE, subject="relay", baseline=_CLIENT)
def relay_rabbitmq_classic(count: int) -> Iterator[Pair]:
    """The relay to a classic queue against its client alone."""
    yield from _against_client("classic", count)


@case(
    needs=["rabbitmq"],
    count=10_000,
    unit=RATE,
    subject="relay",
    baseline=(
        f"a relay over the same rows: SELECT a page of {PAGE}, then per message one kombu publish "
        "that waits for its confirm (confirm_publish, mandatory) and one DELETE, autocommitted"
    ),
)
def relay_vs_one_at_a_time(count: int) -> Iterator[Pair]:
    """The relay to a quorum queue against a relay that waits for each confirm."""
    with servers.queue("quorum") as queue, _naive_sender() as send, _relay() as relay:
        fewer = max(1, count // 10)
        yield Pair(
            lambda: drained(relay, queue.topic, count, queue.expect),
            lambda: one_at_a_time(send, queue.topic, fewer, queue.expect),
            _told(queue, relay),
        )


def _against_client(kind: str, count: int) -> Iterator[Pair]:
    options = {"exchange": settings.EXCHANGE}
    client = RabbitMQPublisher("client", settings.RABBITMQ_URL, options)
    with servers.queue(kind) as queue, contextlib.closing(client), _relay() as relay:
        client.open()
        yield Pair(
            lambda: drained(relay, queue.topic, count, queue.expect),
            lambda: published(client, messages(queue.topic, count), queue.expect),
            _told(queue, relay),
        )


def _relay() -> contextlib.closing[Relay]:
    return contextlib.closing(Relay("rabbitmq", "default"))


def _told(queue: servers.Queue, relay: Relay) -> dict[str, object]:
    outbox = get_settings()
    return {
        **TOLD,
        "queue type": queue.kind,
        "durable": True,
        "persistent": True,
        "confirmed": True,
        "window": RabbitMQPublisher(relay.broker, settings.RABBITMQ_URL, {}).window,
        "batch size": outbox.batch_size,
        "lanes": outbox.lanes,
    }


@contextlib.contextmanager
def _naive_sender() -> Iterator[Callable[[Message], None]]:
    """Kombu as its documentation has it, with confirms turned on."""
    confirmed = {"confirm_publish": True}
    with kombu.Connection(settings.RABBITMQ_URL, transport_options=confirmed) as connection:
        producer: Any = kombu.Producer(connection.channel())

        def send(message: Message) -> None:
            producer.publish(
                message.body,
                exchange=settings.EXCHANGE,
                routing_key=message.topic,
                content_type=message.content_type,
                content_encoding="binary",
                headers=to_headers(message, RABBITMQ_PREFIX),
                message_id=str(message.id),
                delivery_mode=2,
                mandatory=True,
            )

        yield send
