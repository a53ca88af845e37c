"""A message as the commands tell it."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Sequence
from typing import Any

from outbox import routes, wire
from outbox.conf import get_settings
from outbox.exceptions import UnknownTopic
from outbox.models import OutboxMessage
from outbox.store.history import published_times
from outbox.store.selection import state_of
from outbox.store.types import PUBLISHED


def messages(rows: Sequence[OutboxMessage], using: str) -> list[dict[str, Any]]:
    """JSON documents of messages whose rows have their state (`outbox.store.selection.load`)."""
    published = [row for row in rows if state_of(row) == PUBLISHED]
    times = published_times(published, using)
    return [_message(row, using, times.get(row.seq)) for row in rows]


def payload(message: wire.Message) -> object:
    """The payload as JSON has it; what is no JSON as text, or as ``{"base64": …}``."""
    try:
        value = message.payload
    except wire.DecodeError:
        value = message.body
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _message(row: Any, using: str, published_at: dt.datetime | None) -> dict[str, Any]:
    error = {"class": row.todo_error_class, "message": row.todo_error}
    return {
        "id": row.id,
        "topic": row.topic,
        "key": row.key or None,
        "state": state_of(row),
        "broker": row.broker,
        "address": _address(row),
        "attempts": row.todo_attempts or 0,
        "max_attempts": get_settings().max_attempts + (row.todo_forgiven or 0),
        "created_at": row.created_at,
        "due_at": row.todo_due_at,
        "published_at": published_at,
        "age": row.age.total_seconds(),
        "error": error if row.todo_error_class else None,
        "content_type": row.content_type,
        "size": len(row.body),
        "fingerprint": _fingerprint(row.to_message()),
        "database": using,
    }


def _address(row: OutboxMessage) -> dict[str, str]:
    """By today's routes, which is where it would go now."""
    try:
        route = routes.resolve(row.topic)
    except UnknownTopic:
        return {}
    return dict(route.address) if route.broker == row.broker else {}


def _fingerprint(message: wire.Message) -> str | None:
    try:
        return wire.fingerprint(message).hex()
    except wire.DecodeError:
        return None
