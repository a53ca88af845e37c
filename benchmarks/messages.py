"""The messages of all cases, and the tables they come from."""

from __future__ import annotations

import datetime as dt
from typing import Final

from django.db import connection, transaction

from benchmarks.harness import check
from benchmarks.models import Order
from inbox.models import InboxEvent, InboxMessage
from outbox import Draft, publish_many, wire
from outbox.ids import uuid7
from outbox.models import OutboxMessage, OutboxTodo
from outbox.wire.codecs import JSON

BODY: Final = 512
"""Bytes of a body, which is JSON."""

HEADERS: Final = {
    "tenant": "northern-retail-europe",
    "trace": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "user": "customer-service-4711",
    "origin": "web-frontend/2026.11.23",
    "schema": "https://shop.example/orders/placed/v3",
}
"""Of the user; those of the wire format come on top, on both sides of a case."""

_SHORT: Final = {"order": 4711, "note": ""}
PAYLOAD: Final = {**_SHORT, "note": "x" * (BODY - len(wire.encode(_SHORT, JSON)))}
"""What is encoded into a body of `BODY` bytes."""

TOLD: Final = {"body bytes": BODY, "headers": len(HEADERS), "key": "none"}
"""What `Pair.settings` say of them."""


def drafts(topic: str, count: int) -> list[Draft]:
    """What `publish_many` is given."""
    return [Draft(topic, PAYLOAD, headers=HEADERS)] * count


def messages(topic: str, count: int) -> list[wire.Message]:
    """The same as messages, made without a database."""
    body = wire.encode(PAYLOAD, JSON)
    now = dt.datetime.now(dt.UTC)
    return [
        wire.Message(uuid7(), topic, body, source="/benchmarks", time=now, headers=HEADERS)
        for _ in range(count)
    ]


_EMPTIED: Final = (OutboxMessage, OutboxTodo, InboxMessage, InboxEvent, Order)


def clear() -> None:
    """Empty all tables, so that each round finds the same."""
    tables = [model._meta.db_table for model in _EMPTIED]  # noqa: SLF001 - documented API
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(tables)}")


def fill(topic: str, count: int) -> None:
    """A backlog, written by the product itself."""
    clear()
    left = count
    while left:
        part = min(left, 1000)
        with transaction.atomic():
            publish_many(drafts(topic, part))
        left -= part


def check_drained(count: int) -> None:
    """Raise `Wrong` if the outbox still has something to do, or never had it."""
    check("rows left in outbox_todo", OutboxTodo.objects.count(), 0)
    check("rows in outbox_message", OutboxMessage.objects.count(), count)
