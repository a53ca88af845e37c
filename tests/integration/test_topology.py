"""outbox_topology and inbox_topology on real brokers, and what a start asks for."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator

import amqp
import kombu
import pytest
from django.core.management import CommandError, call_command

from inbox import handler
from inbox.brokers.kafka import KafkaConsumer
from inbox.brokers.rabbitmq import RabbitMQConsumer
from inbox.delivery import Disposition
from inbox.exceptions import ConsumerUnavailable, InvalidBroker
from inbox.registry import registrar
from inbox.testing import handlers
from outbox.brokers.base import Status
from outbox.brokers.rabbitmq import RabbitMQPublisher
from outbox.exceptions import BrokerMisconfigured
from outbox.runtime.topology import Shape, State, TopologyObject
from outbox.wire import Message
from tests.services.kafka import create_topics
from tests.services.rabbitmq import RabbitMQ

PATIENCE = 20
NOBODY = "127.0.0.1:1"

Objects = dict[str, tuple[str, str | None]]
"""``kind name`` → state, detail."""


def run(name: str, *arguments: str, code: int = 0) -> Objects:
    """The command's answer, read from its JSON."""
    out = io.StringIO()
    try:
        call_command(name, "--json", *arguments, stdout=out)
        ended = 0
    except CommandError as error:
        ended = error.returncode
    (document,) = map(json.loads, out.getvalue().splitlines())
    assert (document["v"], document["command"]) == (1, name)
    assert ended == code, document
    if "error" in document:
        assert document["error"]["code"] == code
        return {"error": (document["error"]["message"], None)}
    return {f"{o['kind']} {o['name']}": (o["state"], o["detail"]) for o in document["objects"]}


def states(objects: Objects) -> dict[str, str]:
    return {name: state for name, (state, _) in objects.items()}


def got(channel, queue: str) -> bytes | None:
    """The next body of a queue; a quorum queue has it some moments after the publish."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (message := channel.basic_get(queue, no_ack=True)) is not None:
            return message.body
        time.sleep(0.02)
    return None


@pytest.fixture
def name() -> str:
    return f"top-{uuid.uuid4().hex}"


@pytest.fixture
def channel(rabbitmq_url, name) -> Iterator[object]:
    with kombu.Connection(rabbitmq_url) as connection, connection.channel() as channel:
        yield channel
        for queue in (f"{name}.a", f"{name}.b", f"{name}.dead"):
            channel.queue_delete(queue)
        for exchange in (name, f"{name}.dlx", f"{name}.other"):
            channel.exchange_delete(exchange)


@pytest.fixture
def outbox(settings, name) -> Callable[..., None]:
    def use(*routes, backend="outbox.brokers.rabbitmq.RabbitMQPublisher", **broker):
        broker.setdefault("OPTIONS", {"exchange": name})
        settings.OUTBOX = settings.OUTBOX | {
            "BROKERS": {"default": {"BACKEND": backend, **broker}},
            "ROUTES": [*routes, ("*", "default")],
        }

    return use


@pytest.fixture
def inbox(settings, name) -> Iterator[Callable[..., None]]:
    def use(*topics, backend="inbox.brokers.rabbitmq.RabbitMQConsumer", **broker):
        broker.setdefault("OPTIONS", {"exchange": name})
        settings.INBOX = {"BROKERS": {"default": {"BACKEND": backend, **broker}}}
        for topic in topics:
            handler(topic, group=name)(lambda message: None)

    with handlers():
        yield use


# RabbitMQ, the producing half.


@pytest.mark.rabbitmq
def test_the_exchange_is_missing_then_declared_then_present(outbox, channel, name, rabbitmq_url):
    outbox(URL=rabbitmq_url)
    exchange = f"exchange {name}"
    assert run("outbox_topology") == {exchange: ("missing", None)}
    assert run("outbox_topology", "--diff", code=5) == {exchange: ("missing", None)}
    dry = run("outbox_topology", "--declare", "--dry-run")
    assert dry == {exchange: ("missing", "would be declared")}
    assert run("outbox_topology") == {exchange: ("missing", None)}, "a dry run changes nothing"
    assert run("outbox_topology", "--declare") == {exchange: ("present", "declared now")}
    assert run("outbox_topology", "--declare") == {exchange: ("present", None)}
    assert run("outbox_topology", "--diff") == {}


@pytest.mark.rabbitmq
def test_an_exchange_of_another_type_is_said_and_left_alone(outbox, channel, name, rabbitmq_url):
    channel.exchange_declare(name, "fanout", durable=True, auto_delete=False)
    outbox(URL=rabbitmq_url)
    for arguments in (["--diff"], ["--declare"]):
        ((state, detail),) = run("outbox_topology", *arguments, code=5).values()
        assert state == "different"
        assert detail.startswith("type is 'fanout', settings say 'topic': delete it")
        assert "OPTIONS['exchange']" in detail
    channel.exchange_declare(name, "fanout", durable=True, auto_delete=False)


@pytest.mark.rabbitmq
def test_an_exchange_that_only_a_route_names_may_be_of_any_type(
    outbox, channel, name, rabbitmq_url
):
    other = f"{name}.other"
    target = {"BROKER": "default", "ADDRESS": {"exchange": other}}
    outbox(("old.*", target), URL=rabbitmq_url)
    assert states(run("outbox_topology", "--declare"))[f"exchange {other}"] == "present"
    channel.exchange_delete(other)
    channel.exchange_declare(other, "headers", durable=True, auto_delete=False)
    assert run("outbox_topology", "--diff") == {}


@pytest.mark.rabbitmq
def test_without_declare_a_start_asks_and_names_the_command(channel, name, rabbitmq_url):
    options = {"exchange": name, "declare": False}
    publisher = RabbitMQPublisher("default", rabbitmq_url, options)
    with contextlib.closing(publisher):
        with pytest.raises(BrokerMisconfigured, match=rf"{name}.*outbox_topology --declare"):
            publisher.open()
        assert publisher.topology([], Shape(), declare=True)[0].state is State.PRESENT
        publisher.open()


# RabbitMQ, the consuming half.


@pytest.mark.rabbitmq
def test_a_groups_queues_are_missing_then_declared_then_present(inbox, channel, name, rabbitmq_url):
    inbox("a", "b", URL=rabbitmq_url)
    objects = [
        f"exchange {name}",
        f"exchange {name}.dlx",
        f"queue {name}.dead",
        f"binding {name}.dlx -> {name}.dead",
        f"queue {name}.a",
        f"binding {name} -> {name}.a (a)",
        f"queue {name}.b",
        f"binding {name} -> {name}.b (b)",
    ]
    assert states(run("inbox_topology", "--diff", code=5)) == dict.fromkeys(objects, "missing")
    assert states(run("inbox_topology", "--declare")) == dict.fromkeys(objects, "present")
    # AMQP lists no bindings, and to say that they are there would be a guess.
    looked = run("inbox_topology")
    assert {state for each, (state, _) in looked.items() if "->" in each} == {"unknown"}
    assert {state for each, (state, _) in looked.items() if "->" not in each} == {"present"}
    assert run("inbox_topology", "--diff") == {}
    channel.basic_publish(amqp.Message(b"hello"), exchange=name, routing_key="b")
    assert got(channel, f"{name}.b") == b"hello"


@pytest.mark.rabbitmq
def test_a_lost_binding_is_bound_again(inbox, channel, name, rabbitmq_url):
    inbox("a", URL=rabbitmq_url)
    run("inbox_topology", "--declare")
    channel.queue_unbind(f"{name}.a", name, "a")
    run("inbox_topology", "--declare")
    channel.basic_publish(amqp.Message(b"hello"), exchange=name, routing_key="a")
    assert got(channel, f"{name}.a") == b"hello"


@pytest.mark.rabbitmq
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"x-queue-type": "classic"}, "x-queue-type is 'classic', settings say 'quorum'"),
        ({"x-dead-letter-exchange": None}, "x-dead-letter-exchange is none, settings say"),
        (
            {"x-dead-letter-exchange": "elsewhere"},
            "x-dead-letter-exchange is 'elsewhere', settings say",
        ),
    ],
    ids=["type", "no dead letters", "other dead letters"],
)
def test_r12_what_differs_in_a_queue_is_named(
    inbox, channel, name, rabbitmq_url, *, arguments, text
):
    usual = {"x-queue-type": "quorum", "x-dead-letter-exchange": f"{name}.dlx"}
    arguments = {key: value for key, value in (usual | arguments).items() if value}
    channel.queue_declare(f"{name}.a", durable=True, auto_delete=False, arguments=arguments)
    inbox("a", "b", URL=rabbitmq_url)
    found = run("inbox_topology", "--declare", code=5)
    state, detail = found[f"queue {name}.a"]
    assert state == "different"
    assert text in detail
    assert "delete it once it is empty, or set OPTIONS['" in detail
    # Its neighbour is made all the same; the queue is still what it was.
    assert found[f"queue {name}.b"] == ("present", "declared now")
    channel.queue_declare(f"{name}.a", durable=True, auto_delete=False, arguments=arguments)


@pytest.mark.rabbitmq
def test_a_start_names_what_differs_and_what_to_do(channel, name, rabbitmq_url):
    channel.queue_declare(f"{name}.a", durable=True, auto_delete=False)
    consumer = _consumer(rabbitmq_url, name)
    with pytest.raises(
        InvalidBroker, match=r"x-dead-letter-exchange.*: delete it once it is empty, or set"
    ):
        consumer.open()


def _consumer(url, name, **options):
    given = {"exchange": name, **options}
    return RabbitMQConsumer("default", url, given, group=name, topics=["a"], prefetch=5)


@pytest.mark.rabbitmq
def test_without_declare_a_consumer_waits_for_the_command(inbox, channel, name, rabbitmq_url):
    consumer = _consumer(rabbitmq_url, name, declare=False)
    with pytest.raises(ConsumerUnavailable) as caught:
        consumer.open()
    assert f"exchange '{name}', exchange '{name}.dlx', queue '{name}.dead'" in str(caught.value)
    assert f"inbox_topology --declare --group {name}" in str(caught.value)
    inbox("a", URL=rabbitmq_url)
    run("inbox_topology", "--declare", "--group", name)
    with contextlib.closing(consumer):
        consumer.open()


@pytest.fixture(scope="module")
def own_broker() -> Iterator[RabbitMQ]:
    """A node with accounts of its own."""
    with RabbitMQ.running() as broker:
        broker.ctl("add_user", "app", "secret")
        yield broker


@pytest.mark.rabbitmq
def test_an_account_that_may_only_read_and_write(own_broker, inbox, outbox, name):
    """What security.md S18 asks for: no configure permission at run time."""
    own_broker.ctl("set_permissions", "app", "^$", f"^{name}$", rf"^{name}\..*")
    app_url = own_broker.url.replace("guest:guest", "app:secret")
    options = {"exchange": name, "declare": False}

    outbox(URL=app_url, OPTIONS=options)
    inbox("a", URL=app_url, OPTIONS=options)
    assert set(states(run("outbox_topology")).values()) == {"missing"}
    ((state, detail),) = run("outbox_topology", "--declare", code=5).values()
    assert (state, "ACCESS_REFUSED" in detail) == ("missing", True)
    with pytest.raises(InvalidBroker, match=r"403.*set OPTIONS\['declare'\] to False"):
        RabbitMQConsumer(
            "default", app_url, {"exchange": name}, group="g", topics=["a"], prefetch=5
        ).open()

    outbox(URL=own_broker.url, OPTIONS={"exchange": name})
    inbox("b", URL=own_broker.url, OPTIONS={"exchange": name})
    run("outbox_topology", "--declare")
    run("inbox_topology", "--declare")

    outbox(URL=app_url, OPTIONS=options)
    inbox(URL=app_url, OPTIONS=options)
    assert run("outbox_topology", "--diff") == {}
    assert run("outbox_topology") == {
        f"exchange {name}": ("present", "not compared: this account may not configure it")
    }
    publisher = RabbitMQPublisher("default", app_url, options)
    consumer = RabbitMQConsumer("default", app_url, options, group=name, topics=["b"], prefetch=5)
    with contextlib.closing(publisher), contextlib.closing(consumer):
        publisher.open()
        consumer.open()
        publisher.submit(_message("b"), {})
        assert [answer.status for answer in publisher.confirms(PATIENCE)] == [Status.ACKED]
        (delivery,) = consumer.poll(PATIENCE)
        consumer.settle(delivery, Disposition.DEAD)
        consumer.poll(0.2)
    with kombu.Connection(own_broker.url) as connection, connection.channel() as channel:
        assert got(channel, f"{name}.dead") == b"{}"


def _message(topic: str) -> Message:
    now = dt.datetime.now(dt.UTC)
    return Message(id=uuid.uuid4(), topic=topic, body=b"{}", source="/shop", time=now)


# Kafka.


@pytest.fixture
def kafka(kafka_bootstrap) -> dict[str, object]:
    return {"OPTIONS": {"bootstrap.servers": kafka_bootstrap}}


@pytest.mark.kafka_real
def test_topics_of_routes_and_of_the_command_line_are_declared(outbox, kafka, name):
    target = {"BROKER": "default", "ADDRESS": {"topic": f"{name}.all"}}
    outbox(
        (f"{name}.exact", "default"),
        ("many.*", target),
        backend="outbox.brokers.kafka.KafkaPublisher",
        **kafka,
    )
    topics = [f"topic {name}.{each}" for each in ("all", "exact", "free")]
    arguments = ["--topic", f"{name}.free", "--topic", "many.things"]
    assert states(run("outbox_topology", *arguments)) == dict.fromkeys(topics, "missing")
    assert list(run("outbox_topology")) == topics[:2]
    made = run("outbox_topology", "--declare", "--partitions", "3", *arguments)
    assert made == dict.fromkeys(topics, ("present", "declared now"))
    found = run("outbox_topology", *arguments)
    facts = ("present", "3 partitions, replication factor 1")
    assert found == dict.fromkeys(topics, facts)
    ((state, detail), *_) = run("outbox_topology", "--diff", "--partitions", "6", code=5).values()
    assert (state, detail.startswith("partitions: 3, asked for 6")) == ("different", True)
    # Never changed: partitions can only be added, and keys would move.
    run("outbox_topology", "--declare", "--partitions", "6", code=5)
    assert run("outbox_topology", *arguments) == found


@pytest.mark.kafka_real
def test_what_the_cluster_refuses_to_make_is_said(outbox, kafka, name):
    outbox((name, "default"), backend="outbox.brokers.kafka.KafkaPublisher", **kafka)
    ((state, detail),) = run(
        "outbox_topology", "--declare", "--replication-factor", "9", code=5
    ).values()
    assert (state, detail.split(":")[0]) == ("missing", "INVALID_REPLICATION_FACTOR")


@pytest.mark.kafka_real
def test_a_group_has_its_topics_and_one_for_its_dead_letters(inbox, kafka, name):
    inbox(f"{name}.a", backend="inbox.brokers.kafka.KafkaConsumer", **kafka)
    topics = [f"topic {name}.a", f"topic {name}.dead"]
    assert states(run("inbox_topology", "--diff", code=5)) == dict.fromkeys(topics, "missing")
    assert states(run("inbox_topology", "--declare")) == dict.fromkeys(topics, "present")
    assert run("inbox_topology", "--diff") == {}


@pytest.mark.kafka_real
def test_f11_a_consumer_says_which_topic_is_missing_and_waits_for_it(
    inbox, kafka, kafka_bootstrap, name, caplog
):
    options = {**kafka["OPTIONS"], "topic.metadata.refresh.interval.ms": 500}
    consumer = KafkaConsumer("default", "", options, group=name, topics=[name], prefetch=5)
    with contextlib.closing(consumer):
        consumer.open()
        consumer.poll(0.1)
        (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
        assert f"no topic {name}, {name}.dead" in said
        assert f"inbox_topology --declare --group {name}" in said
        inbox(name, backend="inbox.brokers.kafka.KafkaConsumer", **kafka)
        run("inbox_topology", "--declare")
        create_topics(kafka_bootstrap, [name])
        assert _produce_and_take(consumer, kafka_bootstrap, name) == b"hello"


def _produce_and_take(consumer, bootstrap, topic):
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, b"hello")
    assert producer.flush(PATIENCE) == 0
    for _ in range(PATIENCE * 5):
        if found := consumer.poll(0.2):
            return found[0].body
    return None


# Both, in text and in trouble.


@pytest.mark.rabbitmq
def test_as_a_table(outbox, channel, name, rabbitmq_url):
    outbox(URL=rabbitmq_url)
    out = io.StringIO()
    call_command("outbox_topology", stdout=out)
    head, row = out.getvalue().splitlines()
    assert head.split() == ["broker", "kind", "name", "state", "detail"]
    assert row.split() == ["default", "exchange", name, "missing", "-"]
    call_command("outbox_topology", "--declare", stdout=io.StringIO())
    out = io.StringIO()
    call_command("outbox_topology", "--diff", stdout=out)
    assert out.getvalue() == "Nothing differs.\n"


@pytest.mark.parametrize("kind", ["rabbitmq", "kafka"])
def test_a_broker_that_is_not_there_is_6(outbox, inbox, kind):
    classes = {"rabbitmq": "RabbitMQ", "kafka": "Kafka"}[kind]
    url = {"rabbitmq": f"amqp://{NOBODY}/", "kafka": f"kafka://{NOBODY}"}[kind]
    outbox(backend=f"outbox.brokers.{kind}.{classes}Publisher", URL=url, OPTIONS={})
    inbox("a", backend=f"inbox.brokers.{kind}.{classes}Consumer", URL=url, OPTIONS={})
    for command in ("outbox_topology", "inbox_topology"):
        ((message, _),) = run(command, code=6).values()
        assert "'default'" in message


@pytest.mark.rabbitmq
def test_a_refused_login_is_1(outbox, inbox, rabbitmq_url):
    url = rabbitmq_url.replace("guest:guest", "guest:wrong")
    outbox(URL=url)
    inbox("a", URL=url)
    for command in ("outbox_topology", "inbox_topology"):
        ((message, _),) = run(command, code=1).values()
        assert "ACCESS_REFUSED" in message


def test_what_does_not_exist_is_2(inbox):
    assert "Not in" in run("outbox_topology", "--broker", "nowhere", code=2)["error"][0]
    assert "No handler" in run("inbox_topology", code=2)["error"][0]
    inbox("a")
    assert "--broker: nowhere" in run("inbox_topology", "--broker", "nowhere", code=2)["error"][0]
    assert "--group: nobody" in run("inbox_topology", "--group", "nobody", code=2)["error"][0]


def test_a_broker_without_exchanges_or_topics_has_nothing_to_declare(inbox):
    assert run("outbox_topology", "--declare") == {}
    inbox("a", backend="inbox.brokers.memory.MemoryConsumer", OPTIONS={})
    assert run("inbox_topology", "--declare") == {}


def test_a_group_that_celery_feeds_has_no_queue_of_ours(inbox):
    registrar("t", "mailer", by_celery=True)(lambda message: None)
    assert "No handler" in run("inbox_topology", code=2)["error"][0]
    inbox("a", backend="inbox.brokers.memory.MemoryConsumer", OPTIONS={})
    assert "--group: mailer" in run("inbox_topology", "--group", "mailer", code=2)["error"][0]


def test_what_a_broker_does_not_say_is_no_drift():
    drifted = {state for state in State if TopologyObject("topic", "t", state).has_drifted}
    assert drifted == {State.MISSING, State.DIFFERENT}
