"""What the inbox costs the transaction of a handler."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from django.conf import settings
from django.db import transaction

from benchmarks import servers
from benchmarks.harness import COST, RATE, Pair, Timing, case, check, timed, timed_each
from benchmarks.messages import PAYLOAD, TOLD, clear, messages
from benchmarks.models import Account, Order
from benchmarks.sides import published
from inbox import Delivery, Disposition, Message, handler
from inbox.brokers import make_consumer
from inbox.conf import get_settings
from inbox.models import InboxMessage
from inbox.processing import Processor
from inbox.registry import swap
from inbox.worker import Worker
from outbox.brokers.rabbitmq import RabbitMQPublisher

GROUP = "benchmarks"


@case(
    needs=(),
    count=100,
    turns=10,
    unit=COST,
    subject="Processor: inbox row and handler (one INSERT) in one transaction",
    baseline="the handler alone in a transaction of its own, from a decoded message",
)
def inbox_inline(count: int) -> Iterator[Pair]:
    """Taking a delivery in against the handler alone."""
    with _handling("inbox.inline") as handle:
        processor = Processor()
        clear()

        def ours() -> Timing:
            batch = messages("inbox.inline", count)
            deliveries = [Delivery.of(message, GROUP) for message in batch]
            with _checked(count, inbox=True):
                return timed_each(processor.process, deliveries)

        def theirs() -> Timing:
            batch = messages("inbox.inline", count)
            with _checked(count, inbox=False):
                return timed_each(lambda message: _alone(handle, message), batch)

        yield Pair(ours, theirs, {**TOLD, "consumers": 1})


@case(
    needs=["rabbitmq"],
    count=1000,
    unit=RATE,
    subject="inbox worker, from connecting to the last ack",
    baseline="the same consumer and handler without the inbox: a transaction and an ack a message",
)
def inbox_rabbitmq(count: int) -> Iterator[Pair]:
    """Consuming a quorum queue with the inbox against the handler alone."""
    options = {"exchange": settings.EXCHANGE}
    client = RabbitMQPublisher("client", settings.RABBITMQ_URL, options)
    # The worker's queue is <group>.<topic>.
    with (
        servers.queue("quorum", GROUP) as queue,
        contextlib.closing(client),
        _handling(queue.topic) as handle,
    ):

        def fill() -> None:
            clear()
            client.open()
            published(client, messages(queue.topic, count), lambda _count: None)

        def ours() -> Timing:
            fill()
            worker = Worker(GROUP)
            with _checked(count, inbox=True):
                timing = timed(count, lambda: worker.run(threading.Event(), max_messages=count))
            check("processed", worker.total.processed, count)
            queue.expect(0)
            return timing

        def theirs() -> Timing:
            fill()
            with _checked(count, inbox=False):
                timing = timed(count, lambda: _consume_alone(handle, queue.topic, count))
            queue.expect(0)
            return timing

        told = {
            "queue type": queue.kind,
            "prefetch": get_settings().group(GROUP).prefetch,
            "consumers": 1,
        }
        yield Pair(ours, theirs, {**TOLD, **told})


@contextlib.contextmanager
def _handling(topic: str) -> Iterator[Callable[[Message], None]]:
    """The handler of both sides, registered while the case runs."""
    account = Account.objects.create()
    before = swap({})

    @handler(topic, group=GROUP)
    def store(message: Message) -> None:
        check("payload", message.payload, PAYLOAD)
        Order.objects.create(account=account, amount=1)

    try:
        yield store
    finally:
        swap(before)


def _alone(handle: Callable[[Message], None], message: Message) -> None:
    with transaction.atomic():
        handle(message)


def _consume_alone(handle: Callable[[Message], None], topic: str, count: int) -> None:
    with contextlib.closing(make_consumer(get_settings(), GROUP, [topic])) as consumer:
        consumer.open()
        left = count
        while left:
            for delivery in consumer.poll(1.0):
                _alone(handle, delivery.message)
                consumer.settle(delivery, Disposition.ACK)
                left -= 1


@contextlib.contextmanager
def _checked(count: int, *, inbox: bool) -> Iterator[None]:
    """Raise `Wrong` unless each message had its effect once."""
    orders, rows = Order.objects.count(), InboxMessage.objects.count()
    yield
    check("orders", Order.objects.count() - orders, count)
    check("rows of the inbox", InboxMessage.objects.count() - rows, count if inbox else 0)
