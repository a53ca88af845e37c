"""What anybody may throw at a queue or topic: kept as evidence, settled, and nobody waits for it.

The worker, the broker and the database are real.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import struct
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import amqp
import kombu
import pytest
from amqp import serialization
from django.db import connections

from inbox import handler, stats
from inbox.brokers.rabbitmq_frames import UNDECODABLE
from inbox.conf import get_settings
from inbox.models import InboxMessage, InboxQuarantine
from inbox.testing import handlers
from inbox.worker import Worker, WorkerReport
from outbox.wire import Message, to_headers
from tests.services.kafka import create_topics

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgres]

MAX_BODY = 10_000
# Later Pythons read deeper; then it is the comparison that gives up.
TOO_DEEP = "recursion depth" if sys.version_info < (3, 12) else "nests too deeply"
Fields = dict[str, Any]


def message(body: bytes = b'{"n": 1}') -> Message:
    now = dt.datetime.now(dt.UTC)
    return Message(id=uuid.uuid4(), topic="t", body=body, source="/shop", time=now)


def fields(prefix: str, **changes: object) -> Fields:
    """Headers of a good message, some of them changed; None leaves one out."""
    changed = {f"{prefix}{name}": value for name, value in changes.items()}
    given = to_headers(message(), prefix) | changed
    return {name: value for name, value in given.items() if value is not None}


def hostile(prefix: str) -> dict[str, tuple[Fields, bytes, str]]:
    """Name → headers, body and a part of the reason why it is not taken; for any broker."""
    good = b'{"n": 1}'
    return {
        "nothing at all": ({}, b"", "'id' is missing"),
        "no CloudEvent": ({"x": "1"}, b'{"n": 1}', "'id' is missing"),
        "binary garbage": ({}, bytes(range(256)) * 8, "'id' is missing"),
        "no JSON": (fields(prefix), b"{not json", "JSON"),
        "no text": (fields(prefix), b"\xff\xfe\x00", "utf-8"),
        "huge": (fields(prefix), b'"' + b"x" * MAX_BODY + b'"', "MAX_BODY"),
        "other version": (fields(prefix, specversion="0.3"), good, "'specversion' is '0.3'"),
        "no id": (fields(prefix, id=None), good, "'id' is missing"),
        "id is no UUID": (fields(prefix, id="1; DROP TABLE"), good, "no UUID"),
        "no topic": (fields(prefix, type=None), good, "'type' is missing"),
        "time": (fields(prefix, time="yesterday"), good, "no RFC 3339 time"),
        "endless source": (fields(prefix, source="s" * 5000), good, "source has 5000 characters"),
        "NUL": (fields(prefix, partitionkey="a\0b"), good, "no database stores"),
        "deep JSON": (fields(prefix), b"[" * 4000 + b"]" * 4000, TOO_DEEP),
    }


class Seen(list[str]):
    """What the handler was given."""


@pytest.fixture
def seen(settings) -> Iterator[Seen]:
    found = Seen()
    with handlers():
        yield found


def consume(seen: Seen, settings, backend: str, group: str, topic: str, **broker) -> WorkerReport:
    """Run the group until nothing comes any more."""
    settings.INBOX = {
        "BROKERS": {"default": {"BACKEND": f"inbox.brokers.{backend}", **broker}},
        "MAX_BODY": MAX_BODY,
    }
    handler(topic, group=group)(lambda message: seen.append(str(message.id)))
    try:
        return Worker(group, settings=get_settings()).run(threading.Event(), "drain")
    finally:
        connections["default"].close()


def check(report: WorkerReport, seen: Seen, good: list[str], reasons: list[str]) -> None:
    assert sorted(seen) == sorted(good), "the good neighbours are handled, once each"
    rows = list(InboxQuarantine.objects.order_by("pk"))
    assert {row.reason for row in rows} == {"unreadable"}
    for row, reason in zip(rows, reasons, strict=True):
        assert reason in row.detail
    assert (report.received, report.processed) == (len(good) + len(reasons), len(good))
    assert report.unreadable == len(reasons)
    figures = stats.total(stats.figures("default", "state", dt.timedelta(hours=1)), dt.timedelta(1))
    assert (figures.processed, figures.quarantined) == (len(good), len(reasons))
    assert InboxMessage.objects.count() == len(good), "garbage leaves nothing behind but evidence"


# RabbitMQ.


class Raw(bytes):
    """A field of a table as it goes over the wire, which py-amqp itself would not write."""


HUGE_YEAR = Raw(struct.pack(">cQ", b"T", 2**62))


def _nested(depth: int) -> Raw:
    field = b"V"
    for _ in range(depth):
        field = b"F" + struct.pack(">I", len(field) + 2) + b"\x01a" + field
    return Raw(field)


@pytest.fixture
def raw_fields(monkeypatch):
    write = serialization._write_item

    def write_item(value, out, bits):
        return out(bytes(value)) if isinstance(value, Raw) else write(value, out, bits)

    monkeypatch.setattr(serialization, "_write_item", write_item)


RABBITMQ_ONLY: dict[str, tuple[Fields, str]] = {
    "odd types": (
        {
            "application_headers": {
                **fields("ce-", id=7),
                "table": {"a": [1, 2.5, None, True, b"\xff"]},
                "time": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
            }
        },
        "no UUID: '7'",
    ),
    "id is a list": ({"application_headers": fields("ce-", id=[1, 2])}, "no UUID: '[1, 2]'"),
    "bytes in a header": ({"application_headers": {b"\xff\xfe": b"\xff\xfe"}}, "'id' is missing"),
    "content type is no UTF-8": ({"content_type": b"\xff\xfe"}, "'id' is missing"),
    "message id is no UTF-8": ({"message_id": b"\xff\xfe"}, "'id' is missing"),
    "tables too deep": ({"application_headers": {"a": _nested(4000)}}, "'id' is missing"),
    "tables that are just readable": (
        {"application_headers": {"a": _nested(300)}},
        "'id' is missing",
    ),
    "a date that no calendar has": ({"application_headers": {"a": HUGE_YEAR}}, "'id' is missing"),
    "false encoding": ({"content_encoding": "no-such"}, "'id' is missing"),
}


@contextlib.contextmanager
def rabbitmq_group(url: str) -> Iterator[tuple[Any, str]]:
    """A channel, and the name of an exchange whose group has its queue."""
    name = f"hostile-{uuid.uuid4().hex}"
    with kombu.Connection(url) as connection, connection.channel() as channel:
        yield channel, name
        for queue in (f"{name}.t", f"{name}.dead"):
            channel.queue_delete(queue)
        for exchange in (name, f"{name}.dlx"):
            channel.exchange_delete(exchange)


@pytest.mark.rabbitmq
def test_on_rabbitmq(seen, settings, rabbitmq_url, raw_fields):
    with rabbitmq_group(rabbitmq_url) as (channel, name):
        where = {"URL": rabbitmq_url, "OPTIONS": {"exchange": name}}
        backend = "rabbitmq.RabbitMQConsumer"
        consume(seen, settings, backend, name, "t", **where)  # declares the queue
        good, reasons = [], []

        def send(body: bytes, *, key: str | bytes = "t", **properties: Any) -> None:
            channel.basic_publish(amqp.Message(body, **properties), exchange=name, routing_key=key)
            fine = message()
            good.append(str(fine.id))
            headers = to_headers(fine, "ce-")
            content = amqp.Message(fine.body, application_headers=headers)
            channel.basic_publish(content, exchange=name, routing_key="t")

        for headers, body, reason in hostile("ce-").values():
            properties = dict(headers)
            kind = properties.pop("content-type", "application/json")
            send(body, application_headers=properties, content_type=kind)
            reasons.append(reason)
        for properties, reason in RABBITMQ_ONLY.values():
            send(b'{"n": 1}', **properties)
            reasons.append(reason)
        # Of no topic of ours, but an operator may have bound the queue by a pattern.
        channel.queue_bind(f"{name}.t", name, "*")
        send(b"{}", key=b"\xff" * 200)
        reasons.append("'id' is missing")
        with handlers():
            report = consume(seen, settings, backend, name, "t", **where)
            check(report, seen, good, reasons)
            # Acknowledged: nothing comes again, nothing went to the dead letters.
            assert channel.queue_declare(f"{name}.t", passive=True).message_count == 0
            assert channel.queue_declare(f"{name}.dead", passive=True).message_count == 0
        kept = [row.headers for row in InboxQuarantine.objects.all()]
        assert sum(UNDECODABLE in headers for headers in kept) == 4


# Kafka.

KAFKA_ONLY: dict[str, tuple[list[tuple[str, bytes | None]], bytes | None, str]] = {
    "tombstone": ([], None, "'id' is missing"),
    "null header": ([("ce_id", None)], b"{}", "no UUID: 'None'"),
    "header of bytes": ([("ce_id", b"\xff\xfe")], b"{}", "no UUID"),
    "the same header twice": ([("ce_id", b"1"), ("ce_id", b"2")], b"{}", "no UUID: '2'"),
    "header without a name": ([("", b"1")], b"{}", "'id' is missing"),
}


@pytest.mark.kafka_any
def test_on_kafka(seen, settings, kafka_bootstrap):
    from confluent_kafka import Producer

    name = f"hostile-{uuid.uuid4().hex}"
    create_topics(kafka_bootstrap, [name, f"{name}.dead"])
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    good, reasons = [], []

    def send(body: bytes | None, headers: Any, key: bytes | None = None) -> None:
        # All in one partition: what is in the way of one is in the way of all.
        producer.produce(name, body, key, headers=headers, partition=0)
        fine = message()
        good.append(str(fine.id))
        kept = to_headers(fine, "ce_") | {"ce_type": name}
        producer.produce(name, fine.body, headers=kept, partition=0)

    for headers, body, reason in hostile("ce_").values():
        # Text would end at a NUL.
        send(body, {key: value.encode() for key, value in headers.items()}, key=b"\xff\xfe")
        reasons.append(reason)
    for headers, body, reason in KAFKA_ONLY.values():
        send(body, headers)
        reasons.append(reason)
    assert producer.flush(20) == 0
    broker = {"OPTIONS": {"bootstrap.servers": kafka_bootstrap}}
    report = consume(seen, settings, "kafka.KafkaConsumer", name, name, **broker)
    check(report, seen, good, reasons)
    with handlers():
        again = consume(seen, settings, "kafka.KafkaConsumer", name, name, **broker)
    assert again.received == 0, "committed: nothing comes again"
    assert Counter(seen) == Counter(good)


def test_the_corpus_is_hostile_and_its_frame_is_not():
    """A control: the headers that the cases are made of are those of a message that is taken."""
    from inbox.delivery import Delivery
    from inbox.reading import read

    for prefix in ("ce-", "ce_"):
        kept = fields(prefix)
        assert read(Delivery("g", kept, b'{"n": 1}', redelivered=False), MAX_BODY)
    assert json.loads(message().body) == {"n": 1}
