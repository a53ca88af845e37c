"""Messages and quarantined deliveries as the JSON of the commands, of the keys that docs list."""

from __future__ import annotations

import base64
import inspect
from typing import Any

from inbox import registry
from inbox.conf import get_settings
from inbox.exceptions import HandlerNotFound
from inbox.models import InboxMessage, InboxQuarantine, State
from inbox.selection import QUARANTINED, Row
from outbox.runtime.timeline import Event
from outbox.wire import DecodeError

Document = dict[str, Any]


def document(row: Row) -> Document:
    """A row of `selection.listed`."""
    return _quarantined(row) if isinstance(row, InboxQuarantine) else _message(row)


def evidence(row: InboxQuarantine) -> Document:
    """A quarantined delivery of an id, with what tells it from the message its group has."""
    return {
        "at": row.arrived_at,
        "group": row.group_name,
        "topic": row.topic,
        "reason": row.reason,
        "detail": row.detail,
        "fingerprint": _hex(row.fingerprint),
        "known_fingerprint": _hex(row.known_fingerprint),
        "size": row.body_size,
    }


def event(step: Event) -> Document:
    """A step of a timeline."""
    return {"at": step.at, "event": step.name, "detail": step.detail}


def printable(text: str) -> str:
    """The text on one line of a terminal, which what came from outside must not steer."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def payload(row: InboxMessage) -> object:
    """The decoded body, or its text, or its bytes in base64; None when it is not kept."""
    if row.body is None:
        return None
    body = bytes(row.body)
    try:
        decoded = row.to_message().payload
    except DecodeError:
        decoded = body
    if not isinstance(decoded, bytes):
        return decoded
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def _message(row: InboxMessage) -> Document:
    size = getattr(row, "size", None if row.body is None else len(row.body))
    failed = {"class": row.error_class, "message": row.error}
    return {
        "id": row.message_id,
        "group": row.group_name,
        "topic": row.topic,
        "key": row.key,
        "source": row.source,
        "state": State(row.state).name.lower(),
        "attempts": row.attempts,
        "max_attempts": get_settings().max_attempts + row.forgiven,
        "received_at": row.received_at,
        "processed_at": row.processed_at,
        "next_attempt_at": row.next_attempt_at,
        "handler": _handler(row),
        "error": failed if row.error_class else None,
        "content_type": row.content_type,
        "size": size,
        "fingerprint": _hex(row.fingerprint),
        "has_body": size is not None,
        "duplicates": row.duplicates,
        "database": row._state.db,  # noqa: SLF001 - documented API
    }


def _quarantined(row: InboxQuarantine) -> Document:
    """The keys of a message as far as it has them."""
    return {
        "id": row.message_id,
        "group": row.group_name,
        "topic": row.topic or None,
        "key": None,
        "source": None,
        "state": QUARANTINED,
        "attempts": 0,
        "max_attempts": None,
        "received_at": row.arrived_at,
        "processed_at": None,
        "next_attempt_at": None,
        "handler": None,
        "error": {"class": row.reason, "message": row.detail},
        "content_type": None,
        "size": row.body_size,
        "fingerprint": _hex(row.fingerprint),
        "known_fingerprint": _hex(row.known_fingerprint),
        "has_body": None,
        "duplicates": 0,
        "database": row._state.db,  # noqa: SLF001 - documented API
    }


def _handler(row: InboxMessage) -> str | None:
    try:
        function = inspect.unwrap(registry.resolve(row.group_name, row.topic).function)
    except HandlerNotFound:
        return None
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}.{name}"


def _hex(fingerprint: Any) -> str | None:
    return None if fingerprint is None else bytes(fingerprint).hex()
