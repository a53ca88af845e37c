"""Each extra brings what it is for; without it the rest works, and the error has the pip line.

OUTBOX_TEST_EXTRAS says which are installed ("none" or names with commas); default: all.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import uuid

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import override_settings

import inbox
from inbox import registry
from outbox import publish

BRINGS = {
    "rabbitmq": {"kombu", "amqp"},
    "kafka": {"confluent_kafka"},
    "celery": {"celery", "kombu", "amqp"},
    "postgres": {"psycopg"},
}
EXTRAS = os.environ.get("OUTBOX_TEST_EXTRAS", ",".join(BRINGS)).replace("none", "").split(",")
HERE = set().union(*(BRINGS[extra] for extra in EXTRAS if extra))

BACKENDS = {
    "memory": ("memory.MemoryPublisher", "memory.MemoryConsumer", ""),
    "rabbitmq": ("rabbitmq.RabbitMQPublisher", "rabbitmq.RabbitMQConsumer", "amqp://127.0.0.1"),
    "kafka": ("kafka.KafkaPublisher", "kafka.KafkaConsumer", "kafka://127.0.0.1:9092"),
}
MISSING = [name for name in ("rabbitmq", "kafka") if not BRINGS[name] <= HERE]


def using(backend, url=None):
    publisher, consumer, default = BACKENDS[backend]
    return override_settings(
        OUTBOX={
            "SOURCE": "/shop",
            "BROKERS": {
                "default": {"BACKEND": f"outbox.brokers.{publisher}", "URL": url or default}
            },
        },
        INBOX={
            "BROKERS": {"default": {"BACKEND": f"inbox.brokers.{consumer}", "URL": url or default}}
        },
    )


@pytest.fixture
def handled():
    """What a handler of a topic and a group of its own has got; the topic, the group."""
    topic, group = f"t-{uuid.uuid4().hex}", f"g-{uuid.uuid4().hex}"
    got = []
    registered = registry.swap({})
    inbox.handler(topic, group=group)(lambda message: got.append(message.payload))
    yield got, topic, group
    registry.swap(registered)


def travel(topic, group):
    """Publish two messages, relay them, and consume them."""
    with transaction.atomic():
        publish(topic, {"order": 1}, key="a")
        publish(topic, {"order": 2}, key="a")
    call_command("outbox_relay", "--drain", verbosity=0)
    call_command("inbox_consume", "--group", group, "--max-messages", "2", verbosity=0)


def test_only_what_the_extras_bring_is_installed():
    modules = set().union(*BRINGS.values())
    # kombu takes its own place in sys.modules, where find_spec() cannot look.
    found = {name for name in modules if name in sys.modules or importlib.util.find_spec(name)}
    assert found == HERE


@pytest.mark.parametrize("backend", ["rabbitmq", "kafka"])
def test_a_backend_is_in_order_or_the_checks_say_what_to_install(backend):
    with using(backend):
        found = run_checks(tags=["outbox", "inbox"])
    if BRINGS[backend] <= HERE:
        assert found == []
        return
    assert {message.id for message in found} == {"outbox.E001", "inbox.E001"}
    assert all(f'pip install "django-outbox-inbox[{backend}]"' in m.hint for m in found)


if MISSING:

    @pytest.mark.parametrize("backend", MISSING)
    @pytest.mark.django_db(transaction=True)
    def test_relay_and_consumer_say_what_to_install(backend, handled):
        _, _, group = handled
        line = rf'pip install "django-outbox-inbox\[{backend}\]"'
        with using(backend):
            with pytest.raises(ImproperlyConfigured, match=line):
                call_command("outbox_relay", "--once")
            with pytest.raises(CommandError, match=line):
                call_command("inbox_consume", "--group", group, "--once")


@pytest.mark.django_db(transaction=True)
def test_messages_travel_in_memory(handled, capsys):
    got, topic, group = handled
    with using("memory"):
        travel(topic, group)
    assert got == [{"order": 1}, {"order": 2}]


@pytest.mark.django_db(transaction=True)
def test_messages_are_printed(handled, capsys):
    _, topic, _ = handled
    console = {"BACKEND": "outbox.brokers.console.ConsolePublisher"}
    with override_settings(OUTBOX={"SOURCE": "/shop", "BROKERS": {"default": console}}):
        assert run_checks(tags=["outbox", "inbox"]) == []
        with transaction.atomic():
            publish(topic, {"order": 1})
        call_command("outbox_relay", "--drain")
    assert topic in capsys.readouterr().out


if BRINGS["rabbitmq"] <= HERE:

    @pytest.mark.rabbitmq
    @pytest.mark.django_db(transaction=True)
    def test_messages_travel_over_rabbitmq(handled, rabbitmq_url, capsys):
        import amqp  # noqa: F401 - the extra brings it

        got, topic, group = handled
        with using("rabbitmq", rabbitmq_url):
            # The first run declares the queue.
            call_command("inbox_consume", "--group", group, "--drain", verbosity=0)
            travel(topic, group)
        assert got == [{"order": 1}, {"order": 2}]


if BRINGS["kafka"] <= HERE:

    @pytest.mark.kafka_any
    @pytest.mark.django_db(transaction=True)
    def test_messages_travel_over_kafka(handled, kafka_bootstrap, capsys):
        from tests.services.kafka import create_topics

        got, topic, group = handled
        create_topics(kafka_bootstrap, [topic, f"{group}.dead"])
        with using("kafka", f"kafka://{kafka_bootstrap}"):
            travel(topic, group)
        assert got == [{"order": 1}, {"order": 2}]


if BRINGS["celery"] <= HERE:

    @pytest.mark.django_db(transaction=True)
    def test_celery_drains(handled, capsys):
        from outbox.tasks import drain

        got, topic, group = handled
        with using("memory"):
            with transaction.atomic():
                publish(topic, {"order": 1})
            assert drain()["default"]["published"] == 1
            call_command("inbox_consume", "--group", group, "--max-messages", "1", verbosity=0)
        assert got == [{"order": 1}]


if BRINGS["postgres"] <= HERE:

    @pytest.mark.postgres
    @pytest.mark.django_db
    def test_the_database_is_postgresql(database_url):
        assert connection.vendor == "postgresql"
