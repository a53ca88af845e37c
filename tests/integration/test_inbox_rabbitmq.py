"""The RabbitMQ consumer: topology, refusals, heartbeats and connections that break."""

from __future__ import annotations

import socket
import threading
import time
import uuid

import pytest

from inbox.brokers.rabbitmq import RabbitMQConsumer
from inbox.delivery import Disposition
from inbox.exceptions import ConsumerUnavailable, InvalidBroker

pytestmark = pytest.mark.rabbitmq

PATIENCE = 10


@pytest.fixture
def names():
    name = f"it-{uuid.uuid4().hex}"
    return {"group": name, "exchange": name, "queue": f"{name}.t"}


@pytest.fixture
def channel(rabbitmq_url, names):
    import kombu

    with kombu.Connection(rabbitmq_url) as connection:
        made = connection.channel()
        yield made
        with connection.channel() as cleaner:
            for queue in (names["queue"], f"{names['group']}.u", f"{names['group']}.dead"):
                cleaner.queue_delete(queue)
            for exchange in (names["exchange"], f"{names['group']}.dlx"):
                cleaner.exchange_delete(exchange)


@pytest.fixture
def make(rabbitmq_url, names, channel):
    made = []

    def build(url=rabbitmq_url, topics=("t",), prefetch=10, **options):
        options = {"exchange": names["exchange"], **options}
        consumer = RabbitMQConsumer(
            "default", url, options, group=names["group"], topics=topics, prefetch=prefetch
        )
        made.append(consumer)
        return consumer

    yield build
    for consumer in made:
        consumer.close()


def send(channel, names, *bodies, topic="t", **properties):
    import amqp

    for body in bodies:
        message = amqp.Message(body, **properties)
        channel.basic_publish(message, exchange=names["exchange"], routing_key=topic)


def take(consumer, count=1):
    deadline = time.monotonic() + PATIENCE
    found = []
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} came"
        found += consumer.poll(0.2)
    return found


def test_an_existing_queue_with_other_arguments_is_named(make, channel, names):
    channel.queue_declare(names["queue"], durable=True, auto_delete=False)
    consumer = make()
    with pytest.raises(InvalidBroker, match=r"inequivalent arg '[a-z-]+' for queue"):
        consumer.open()


def test_no_limit_of_deliveries_below_version_4_and_minus_one_from_it_on(make):
    consumer = make()
    for version, arguments in [
        ("3.13.7", {}),
        ("4.0.2", {"x-delivery-limit": -1}),
        ("10.1", {"x-delivery-limit": -1}),
        ("", {}),
    ]:
        assert consumer._delivery_limit(version) == arguments
    assert make(queue_type="classic")._delivery_limit("4.0.2") == {}
    assert make(delivery_limit=7)._delivery_limit("4.0.2") == {"x-delivery-limit": 7}


def test_a_message_given_back_more_than_twenty_times_still_comes(make, channel, names):
    """20 is what a quorum queue of RabbitMQ 4 allows by default (R12)."""
    consumer = make()
    consumer.open()
    send(channel, names, b"1")
    for _ in range(25):
        (delivery,) = take(consumer)
        consumer.settle(delivery, Disposition.RETRY)
    assert take(consumer)[0].body == b"1"


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_both_types_of_queues(make, channel, names, queue_type):
    consumer = make(queue_type=queue_type)
    consumer.open()
    send(channel, names, b"1")
    consumer.settle(take(consumer)[0], Disposition.ACK)


def test_several_topics_share_the_connection_and_the_prefetch(make, channel, names):
    consumer = make(topics=["t", "u"], prefetch=2)
    consumer.open()
    send(channel, names, b"1", b"2", topic="t")
    send(channel, names, b"3", b"4", topic="u")
    assert {delivery.body for delivery in take(consumer, 2)} == {b"1", b"3"}
    assert consumer.poll(0.2) == []


def test_native_properties_of_a_foreign_message_are_kept_as_evidence(make, channel, names):
    consumer = make()
    consumer.open()
    send(
        channel,
        names,
        b"hello",
        content_type="text/plain",
        content_encoding="no-such",
        app_id="legacy",
        application_headers={"n": 7, "list": ["a", {"b": 1}]},
    )
    headers = take(consumer)[0].headers
    assert headers["content-type"] == "text/plain"
    assert (headers["app_id"], headers["n"], headers["list"]) == ("legacy", "7", "['a', {'b': 1}]")


def test_of_a_message_of_ours_only_its_own_headers(make, channel, names):
    consumer = make()
    consumer.open()
    send(channel, names, b"1", message_id="x", application_headers={"ce-id": "y", "own": "z"})
    headers = take(consumer)[0].headers
    assert headers == {"ce-id": "y", "own": "z"}


def test_a_deleted_queue_is_an_unavailable_broker(make, channel, names):
    consumer = make()
    consumer.open()
    channel.queue_delete(names["queue"])
    with pytest.raises(ConsumerUnavailable):
        consumer.poll(PATIENCE)
    consumer.open()
    send(channel, names, b"1")
    assert take(consumer)[0].body == b"1"


def test_a_handler_longer_than_the_heartbeat_costs_the_connection_and_nothing_else(
    make, channel, names
):
    """R8: the broker closes after two silent heartbeats; what was settled late comes again."""
    consumer = make(heartbeat=1)
    consumer.open()
    send(channel, names, b"1")
    (delivery,) = take(consumer)
    time.sleep(4)
    with pytest.raises(ConsumerUnavailable):
        settle_and_poll(consumer, delivery)
    consumer.open()
    (again,) = take(consumer)
    assert (again.body, again.redelivered) == (b"1", True)
    consumer.settle(again, Disposition.ACK)


def settle_and_poll(consumer, delivery):
    consumer.settle(delivery, Disposition.ACK)
    consumer.poll(2)


def test_an_idle_connection_is_kept_alive(make, channel, names):
    consumer = make(heartbeat=1)
    consumer.open()
    assert consumer.poll(4) == []
    send(channel, names, b"1")
    assert take(consumer)[0].body == b"1"


def test_a_short_handler_after_a_batch_is_no_missed_heartbeat(make, channel, names):
    """The broker's own heartbeats lie unread while a handler runs: they count."""
    consumer = make(heartbeat=2)
    consumer.open()
    send(channel, names, b"1", b"2", b"3")
    for _ in range(3):
        (delivery,) = take(consumer)
        time.sleep(1.5)
        consumer.settle(delivery, Disposition.ACK)
    assert consumer.poll(0.1) == []


def test_names_that_amqp_cannot_hold_are_refused_before_connecting(make):
    with pytest.raises(InvalidBroker, match="255 bytes"):
        make(topics=["t" * 249])


def test_a_topic_may_not_be_the_dead_letter_queue(make):
    with pytest.raises(InvalidBroker, match="dead letter queue"):
        make(topics=["dead"])


def test_wrong_password(make, rabbitmq_url):
    consumer = make(url=rabbitmq_url.replace("guest:guest", "guest:wrong"))
    with pytest.raises(InvalidBroker, match="ACCESS_REFUSED") as caught:
        consumer.open()
    assert "wrong" not in str(caught.value)
    # It is the same code as a refused declaration's, and another matter.
    assert "declare" not in str(caught.value)


def test_a_server_that_says_nothing_is_given_up(make):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        consumer = make(url=f"amqp://guest:guest@127.0.0.1:{port}//", connect_timeout=0.5)
        started = time.monotonic()
        with pytest.raises(ConsumerUnavailable):
            consumer.open()
        assert time.monotonic() - started < 5


def test_a_server_that_talks_nonsense_is_given_up(make):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            peer, _ = server.accept()
            with peer:
                peer.recv(100)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        port = server.getsockname()[1]
        consumer = make(url=f"amqp://guest:guest@127.0.0.1:{port}//", connect_timeout=1)
        with pytest.raises(ConsumerUnavailable):
            consumer.open()
        thread.join()
