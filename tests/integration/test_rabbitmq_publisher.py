"""The RabbitMQ publisher against a real RabbitMQ."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import kombu
import pytest

from outbox.brokers.base import Confirm, Status
from outbox.brokers.rabbitmq import RabbitMQPublisher
from outbox.exceptions import BrokerMisconfigured, BrokerUnavailable
from outbox.wire import Message
from tests.services.rabbitmq import RabbitMQ

PATIENCE = 10

pytestmark = pytest.mark.rabbitmq


@dataclass(frozen=True)
class Bench:
    """An exchange of its own, and a channel to look at queues with."""

    url: str
    exchange: str
    channel: Any

    def publisher(self, **options: object) -> contextlib.closing[RabbitMQPublisher]:
        given = {"exchange": self.exchange, **options}
        return contextlib.closing(RabbitMQPublisher("default", self.url, given))

    def queue(self, topic: str, **arguments: object) -> str:
        """A durable queue bound to a topic; its name."""
        name = f"{self.exchange}.{topic}"
        self.channel.exchange_declare(self.exchange, "topic", durable=True, auto_delete=False)
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.channel.queue_declare(name, durable=True, auto_delete=False, arguments=given)
        self.channel.queue_bind(name, self.exchange, topic)
        return name

    def ids(self, queue: str) -> list[str]:
        """Takes all messages of a queue."""
        got = iter(lambda: self.channel.basic_get(queue, no_ack=True), None)
        return [message.properties["message_id"] for message in got]


@contextlib.contextmanager
def bench_at(url: str) -> Iterator[Bench]:
    with kombu.Connection(url) as connection:
        yield Bench(url, f"test.{uuid.uuid4()}", connection.channel())


@pytest.fixture
def bench(rabbitmq_url) -> Iterator[Bench]:
    with bench_at(rabbitmq_url) as bench:
        yield bench
        bench.channel.exchange_delete(bench.exchange)


@pytest.fixture(scope="module")
def own_broker() -> Iterator[RabbitMQ]:
    """A node that a test may kill."""
    with RabbitMQ.running() as broker:
        yield broker


def message(topic: str = "t", **changes) -> Message:
    fields = {
        "id": uuid.uuid4(),
        "topic": topic,
        "body": b"{}",
        "source": "/shop",
        "time": dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC),
    }
    return Message(**(fields | changes))


def send(publisher: RabbitMQPublisher, *messages: Message) -> dict[uuid.UUID, Confirm]:
    for each in messages:
        publisher.submit(each, {})
    answers: list[Confirm] = []
    while len(answers) < len(messages):
        more = publisher.confirms(PATIENCE)
        assert more, "an answer is missing"
        answers += more
    assert len(answers) == len(messages)
    return {answer.message_id: answer for answer in answers}


def _forever(publisher: RabbitMQPublisher) -> None:
    while publisher.confirms(PATIENCE):
        pass


def test_r2_unroutable_messages_are_returned_and_their_neighbours_acked(bench) -> None:
    bench.queue("t")
    messages = [message("nobody" if number % 100 == 7 else "t") for number in range(1000)]
    with bench.publisher() as publisher:
        publisher.open()
        answers = send(publisher, *messages)
    for each in messages:
        expected = Status.RETURNED if each.topic == "nobody" else Status.ACKED
        assert answers[each.id].status is expected
    assert "NO_ROUTE" in answers[messages[7].id].reason


def test_r4_a_full_queue_nacks_and_other_queues_go_on(bench) -> None:
    bench.queue("full", x_max_length=1, x_overflow="reject-publish")
    bench.queue("t")
    first, second, fine = message("full"), message("full"), message("t")
    with bench.publisher() as publisher:
        publisher.open()
        assert send(publisher, first)[first.id].status is Status.ACKED
        answers = send(publisher, second, fine)
    assert answers[second.id].status is Status.NACKED
    assert answers[fine.id].status is Status.ACKED


def test_r7_an_exchange_that_is_not_there_is_named(bench) -> None:
    queue = bench.queue("t")
    with bench.publisher() as publisher:
        publisher.open()
        good = message("t")
        publisher.submit(good, {})
        publisher.submit(message("t"), {"exchange": "typo"})
        with pytest.raises(BrokerMisconfigured, match=r"404.*no exchange 'typo'"):
            _forever(publisher)
        publisher.open()
        assert send(publisher, good)[good.id].status is Status.ACKED
    assert str(good.id) in bench.ids(queue)


def test_r7_a_message_above_the_brokers_limit_breaks_the_channel(own_broker) -> None:
    own_broker.ctl("eval", "application:set_env(rabbit, max_message_size, 1000).")
    try:
        with bench_at(own_broker.url) as bench, bench.publisher() as publisher:
            publisher.open()
            publisher.submit(message("t", body=b"x" * 2000), {})
            with pytest.raises(BrokerMisconfigured, match=r"406.*larger"):
                publisher.confirms(PATIENCE)
    finally:
        own_broker.ctl("eval", "application:set_env(rabbit, max_message_size, 134217728).")


def test_an_exchange_of_another_type_is_named(bench) -> None:
    bench.channel.exchange_declare(bench.exchange, "direct", durable=True, auto_delete=False)
    with (
        bench.publisher() as publisher,
        pytest.raises(BrokerMisconfigured, match=rf"406.*{bench.exchange}.*'direct'"),
    ):
        publisher.open()
    with bench.publisher(declare=False) as publisher:
        publisher.open()


def test_the_default_exchange_reaches_a_queue_by_its_name(bench) -> None:
    queue = bench.queue("t")
    with bench.publisher(exchange="") as publisher:
        publisher.open()
        sent = message()
        publisher.submit(sent, {"routing_key": queue})
        assert publisher.confirms(PATIENCE) == [Confirm(sent.id, Status.ACKED)]
    assert bench.ids(queue) == [str(sent.id)]


@pytest.mark.parametrize(
    ("part", "wrong", "text"),
    [("guest:guest", "guest:wrong", "403"), ("//", "/nowhere", "nowhere")],
    ids=["password", "virtual host"],
)
def test_a_refused_login_needs_a_person(rabbitmq_url, part, wrong, text) -> None:
    head, separator, tail = rabbitmq_url.rpartition(part)
    assert separator
    publisher = RabbitMQPublisher("default", head + wrong + tail, {})
    with pytest.raises(BrokerMisconfigured, match=text):
        publisher.open()


def test_what_was_acked_survives_the_death_of_the_broker(own_broker) -> None:
    messages = [message() for _ in range(500)]
    with bench_at(own_broker.url) as bench, bench.publisher() as publisher:
        queue = bench.queue("t")
        publisher.open()
        for each in messages:
            publisher.submit(each, {})
        answers = publisher.confirms(PATIENCE)
        own_broker.kill()
        with pytest.raises(BrokerUnavailable):
            _forever(publisher)
        with pytest.raises(BrokerUnavailable, match="refused"):
            publisher.open()
    own_broker.start()
    with bench_at(own_broker.url) as bench:
        survivors = set(bench.ids(queue))
    acked = {str(answer.message_id) for answer in answers if answer.status is Status.ACKED}
    assert acked
    assert acked <= survivors


def test_r6_an_alarm_blocks_and_its_end_unblocks(own_broker) -> None:
    with bench_at(own_broker.url) as bench, bench.publisher() as publisher:
        bench.queue("t")
        publisher.open()
        send(publisher, message())
        own_broker.ctl("set_vm_memory_high_watermark", "0.0001")
        try:
            with pytest.raises(BrokerUnavailable, match="blocks publishers"):
                _submit_until_it_fails(publisher)
        finally:
            own_broker.ctl("set_vm_memory_high_watermark", "0.4")
        publisher.open()
        again = message()
        assert send(publisher, again)[again.id].status is Status.ACKED


def _submit_until_it_fails(publisher: RabbitMQPublisher) -> None:
    """The broker looks at its memory now and then, and tells us at the publish after that."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        publisher.submit(message(), {})
        publisher.confirms(0.1)
