"""The RabbitMQ publisher against a scripted server: what it may believe, and what it must doubt."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import threading
import time
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.brokers.base import Confirm, Status
from outbox.brokers.rabbitmq import RabbitMQPublisher
from outbox.exceptions import BrokerError, BrokerMisconfigured, BrokerUnavailable, InvalidBroker
from outbox.wire import Message
from tests.fake_amqp import FakeBroker

PATIENCE = 5


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with FakeBroker() as fake:
        yield fake


@pytest.fixture
def publisher(broker: FakeBroker) -> Iterator[RabbitMQPublisher]:
    publisher = RabbitMQPublisher("default", broker.url, {})
    publisher.open()
    yield publisher
    publisher.close()


def message(**changes) -> Message:
    fields = {
        "id": uuid.uuid4(),
        "topic": "orders.placed",
        "body": b'{"order":1}',
        "source": "/shop",
        "time": dt.datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=dt.UTC),
    }
    return Message(**(fields | changes))


def submit(publisher: RabbitMQPublisher, broker: FakeBroker, count: int = 1) -> list[Message]:
    messages = [message() for _ in range(count)]
    for each in messages:
        publisher.submit(each, {})
    broker.wait_for(count)
    return messages


def collect(publisher: RabbitMQPublisher, count: int) -> list[Confirm]:
    answers: list[Confirm] = []
    while len(answers) < count:
        more = publisher.confirms(PATIENCE)
        assert more, f"only {len(answers)} of {count} answers came"
        answers += more
    assert len(answers) == count
    return answers


def test_a_publish_is_mandatory_persistent_and_carries_the_envelope(broker, publisher) -> None:
    sent = message(key="k1", headers={"trace": "t"})
    publisher.submit(sent, {"exchange": "other", "routing_key": "there"})
    (arrived,) = broker.wait_for(1)
    assert (arrived.exchange, arrived.routing_key, arrived.mandatory) == ("other", "there", True)
    assert arrived.body == sent.body
    assert arrived.properties == {
        "content_type": "application/json",
        "delivery_mode": 2,
        "message_id": str(sent.id),
        "timestamp": int(sent.time.timestamp()),
        "type": "orders.placed",
        "app_id": "/shop",
        "application_headers": {
            "trace": "t",
            "ce-specversion": "1.0",
            "ce-id": str(sent.id),
            "ce-source": "/shop",
            "ce-type": "orders.placed",
            "ce-time": "2026-11-23T12:00:00.123456Z",
            "ce-partitionkey": "k1",
        },
    }


def test_r1_a_late_ack_confirms_the_message_it_names_and_no_other(broker, publisher) -> None:
    first = submit(publisher, broker)[0]
    assert publisher.confirms(0.05) == []
    second = message()
    publisher.submit(second, {})
    broker.wait_for(2)
    broker.ack(1)
    assert collect(publisher, 1) == [Confirm(first.id, Status.ACKED)]
    broker.nack(2)
    (answer,) = collect(publisher, 1)
    assert (answer.message_id, answer.status) == (second.id, Status.NACKED)


def test_r2_the_ack_of_a_returned_message_says_returned(broker, publisher) -> None:
    lost, kept = submit(publisher, broker, 2)
    broker.give_back(1)
    broker.ack(2, multiple=True)
    answers = {answer.message_id: answer for answer in collect(publisher, 2)}
    assert answers[kept.id].status is Status.ACKED
    assert answers[lost.id].status is Status.RETURNED
    assert "312 NO_ROUTE" in answers[lost.id].reason


def test_r3_heartbeats_do_not_prolong_the_wait() -> None:
    with FakeBroker(heartbeat_every=0.01) as broker:
        publisher = RabbitMQPublisher("default", broker.url, {})
        publisher.open()
        submit(publisher, broker)
        began = time.monotonic()
        assert publisher.confirms(0.2) == []
        assert 0.2 <= time.monotonic() - began < 1
        publisher.close()


def test_r3_heartbeats_do_not_prolong_opening() -> None:
    with FakeBroker(greets=False, heartbeat_every=0.01) as broker:
        publisher = RabbitMQPublisher("default", broker.url, {"connect_timeout": 0.2})
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="silent"):
            publisher.open()
        assert time.monotonic() - began < 1


def test_r5_a_server_that_never_greets_is_given_up() -> None:
    with FakeBroker(greets=False) as broker:
        publisher = RabbitMQPublisher("default", broker.url, {"connect_timeout": 0.1})
        with pytest.raises(BrokerUnavailable, match="silent"):
            publisher.open()


def test_r5_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    publisher = RabbitMQPublisher("default", f"amqp://user:secret@127.0.0.1:{port}/v", {})
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{port}/v.*refused") as caught:
        publisher.open()
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


def test_one_call_takes_all_answers_that_are_there(broker, publisher) -> None:
    submit(publisher, broker, 50)
    for tag in range(50, 0, -1):
        broker.ack(tag)
    # On the loopback interface what was sent has arrived.
    answers = publisher.confirms(PATIENCE)
    assert [answer.status for answer in answers] == [Status.ACKED] * 50


@pytest.mark.parametrize(
    "doubtful",
    [
        lambda broker: broker.ack(2),
        lambda broker: broker.ack(0, multiple=True),
        lambda broker: broker.nack(2, multiple=True),
        lambda broker: (broker.ack(1), broker.ack(1)),
        lambda broker: broker.give_back_id(str(uuid.uuid4())),
        lambda broker: broker.give_back_id("no uuid"),
        lambda broker: broker.garble(),
        lambda broker: broker.hang_up(),
        lambda broker: broker.close_connection(320, "CONNECTION_FORCED"),
        lambda broker: broker.close_channel(541, "INTERNAL_ERROR"),
    ],
    ids=[
        "unknown tag",
        "tag 0",
        "beyond the last tag",
        "twice",
        "unknown return",
        "unreadable return",
        "garbled",
        "hung up",
        "connection closed",
        "channel closed",
    ],
)
def test_doubt_drops_the_connection(broker, publisher, doubtful) -> None:
    submit(publisher, broker)
    doubtful(broker)
    with pytest.raises(BrokerUnavailable):
        collect(publisher, 2)
    assert broker.client_closed.wait(PATIENCE)
    with pytest.raises(BrokerUnavailable, match="not connected"):
        publisher.submit(message(), {})
    # A new connection counts from 1 again and knows nothing of the old one.
    publisher.open()
    again = submit(publisher, broker)[0]
    broker.ack(1)
    assert collect(publisher, 1) == [Confirm(again.id, Status.ACKED)]


@pytest.mark.parametrize(
    ("code", "text"),
    [(404, "NOT_FOUND - no exchange 'typo'"), (403, "ACCESS_REFUSED"), (406, "PRECONDITION")],
)
def test_r7_a_channel_closed_over_a_message_names_the_reason(broker, publisher, code, text) -> None:
    submit(publisher, broker, 3)
    broker.close_channel(code, text)
    with pytest.raises(BrokerMisconfigured, match=text):
        publisher.confirms(PATIENCE)
    publisher.open()


def test_a_half_sent_frame_does_not_hang(broker, publisher, monkeypatch) -> None:
    monkeypatch.setattr("outbox.runtime.amqp.STALL", 0.1)
    submit(publisher, broker)
    broker.stutter()
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="timed out"):
        publisher.confirms(PATIENCE)
    assert time.monotonic() - began < 1


def test_r6_a_blocked_publisher_says_so_until_it_is_unblocked(broker, publisher) -> None:
    first = submit(publisher, broker)[0]
    broker.block()
    broker.unblock()
    broker.ack(1)
    assert collect(publisher, 1) == [Confirm(first.id, Status.ACKED)]
    publisher.submit(message(), {})
    broker.block()
    broker.ack(2)
    collect(publisher, 1)
    with pytest.raises(BrokerUnavailable, match="memory or disk alarm"):
        publisher.submit(message(), {})


def test_r8_missing_heartbeats_end_the_connection(broker) -> None:
    publisher = RabbitMQPublisher("default", broker.url, {"heartbeat": 1})
    publisher.open()
    with pytest.raises(BrokerUnavailable, match="heartbeats missed"):
        publisher.confirms(PATIENCE)


def test_unread_heartbeats_are_not_missing_ones() -> None:
    with FakeBroker(heartbeat_every=0.2) as broker:
        publisher = RabbitMQPublisher("default", broker.url, {"heartbeat": 1})
        publisher.open()
        publisher.confirms(0)
        threading.Event().wait(2.1)  # the owner was busy for more than two heartbeats
        publisher.confirms(0)
        publisher.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="a setting of Linux")
def test_r9_a_stutter_of_the_network_is_no_reset(publisher) -> None:
    sock = publisher._reader.sock
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000


def test_r10_another_thread_is_refused(publisher) -> None:
    caught: list[BaseException] = []

    def use() -> None:
        try:
            publisher.submit(message(), {})
        except BrokerError as error:
            caught.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert "another thread" in str(caught[0])


def test_the_same_id_is_refused_while_unanswered(broker, publisher) -> None:
    (sent,) = submit(publisher, broker)
    with pytest.raises(BrokerError, match="submitted again"):
        publisher.submit(sent, {})


@pytest.mark.parametrize(
    "changes",
    [
        {"topic": "t" * 256},
        {"source": "é" * 128},
        {"headers": {"h" * 256: "v"}},
        {"headers": {"big": "v" * 140_000}},
    ],
    ids=["topic", "source", "header name", "headers"],
)
def test_what_amqp_cannot_carry_is_the_messages_fault(broker, publisher, changes) -> None:
    misfit, good = message(**changes), message()
    publisher.submit(misfit, {})
    publisher.submit(good, {})
    (arrived,) = broker.wait_for(1)
    assert arrived.properties["message_id"] == str(good.id)
    broker.ack(1)
    answers = {answer.message_id: answer.status for answer in collect(publisher, 2)}
    assert answers == {misfit.id: Status.NACKED, good.id: Status.ACKED}


def test_a_foreign_exception_passes_and_drops_the_connection(publisher, monkeypatch) -> None:
    """A soft time limit is raised anywhere (C11) and is no answer of the broker."""

    class TimeLimit(Exception):  # noqa: N818
        pass

    def interrupted(*args, **kwargs):
        raise TimeLimit

    monkeypatch.setattr(publisher._channel, "basic_publish", interrupted)
    with pytest.raises(TimeLimit):
        publisher.submit(message(), {})
    with pytest.raises(BrokerUnavailable, match="not connected"):
        publisher.confirms(0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"exchnage": "events"}, "Did you mean 'exchange'"),
        ({"window": "many"}, "like its default, 1000"),
        ({"declare": 1}, "like its default, True"),
        ({"heartbeat": True}, "like its default, 30"),
    ],
)
def test_wrong_options_are_refused(options, text) -> None:
    with pytest.raises(InvalidBroker, match=text):
        RabbitMQPublisher("default", "amqp://localhost/", options)


@pytest.mark.parametrize("url", ["", "kafka://h", "amqp://h:port/", "amqp://h/?heartbeat=1"])
def test_wrong_urls_are_refused(url) -> None:
    with pytest.raises(InvalidBroker, match="must look like"):
        RabbitMQPublisher("default", url, {})


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeBroker]:
    with FakeBroker() as fake:
        yield fake


@given(data=st.data())
@settings(max_examples=150)
def test_acked_is_said_of_acked_messages_only(shared: FakeBroker, data: st.DataObject) -> None:
    with contextlib.closing(RabbitMQPublisher("default", shared.url, {})) as publisher:
        publisher.open()
        messages = submit(publisher, shared, data.draw(st.integers(1, 12), label="published"))
        expected = answer_at_random(shared, data, [each.id for each in messages])
        answers = collect(publisher, len(expected))
        assert {answer.message_id: answer.status for answer in answers} == expected
        assert publisher.confirms(0) == []


def answer_at_random(broker: FakeBroker, data: st.DataObject, ids: list[uuid.UUID]):
    """Ack, nack and return some tags in any order; what the publisher may then say."""
    expected: dict[uuid.UUID, Status] = {}
    open_tags = set(range(1, len(ids) + 1))
    returned: set[int] = set()
    while open_tags and data.draw(st.integers(0, 5), label="go on"):
        tag = data.draw(st.sampled_from(sorted(open_tags)), label="tag")
        verdict = data.draw(st.sampled_from(["ack", "nack", "return"]), label="verdict")
        multiple = data.draw(st.booleans(), label="multiple")
        if verdict == "return":
            broker.give_back(tag)
            returned.add(tag)
        (broker.nack if verdict == "nack" else broker.ack)(tag, multiple=multiple)
        for each in {each for each in open_tags if each == tag or (multiple and each < tag)}:
            status = Status.NACKED if verdict == "nack" else Status.ACKED
            expected[ids[each - 1]] = Status.RETURNED if each in returned else status
            open_tags.remove(each)
    return expected
