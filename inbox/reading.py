"""From a delivery to what the inbox can hold and run, or the reason why it cannot."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from inbox.delivery import Delivery
from inbox.models import InboxMessage
from outbox.wire import DecodeError, Message, fingerprint

_LIMITS = {
    field.name: field.max_length
    for field in InboxMessage._meta.concrete_fields  # noqa: SLF001 - documented API
    if field.name in {"topic", "key", "source", "content_type"} and field.max_length
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A readable message at one group, with the mark of its content."""

    group: str
    message: Message
    fingerprint: bytes


def read(delivery: Delivery, max_body: int) -> Arrival:
    """Decode and check everything that storing or running it needs. Raises `DecodeError`."""
    if len(delivery.body) > max_body:
        error = f"The body has {len(delivery.body)} bytes, INBOX['MAX_BODY'] allows {max_body}."
        raise DecodeError(error)
    try:
        message = delivery.message
        message = dataclasses.replace(message, time=message.time.astimezone(dt.UTC))
        _check_text(message)
        return Arrival(delivery.group, message, fingerprint(message))
    except (ValueError, OverflowError, RecursionError) as error:
        # Valid JSON may still nest or count beyond what Python takes; a time may have no UTC.
        text = f"The delivery cannot be taken apart: {error}."
        raise DecodeError(text) from error


def evidence(text: str, limit: int) -> str:
    """The text as any database can hold it: what it cannot hold is escaped, the rest is cut."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")[:limit]


def _check_text(message: Message) -> None:
    for name, limit in _LIMITS.items():
        length = len(getattr(message, name))
        if length > limit:
            error = f"The {name} has {length} characters, the inbox holds {limit}."
            raise DecodeError(error)
    for name, text in _texts(message):
        # PostgreSQL stores neither NUL nor half of a surrogate pair.
        if evidence(text, len(text)) != text:
            error = f"The {name} has a character that no database stores."
            raise DecodeError(error)


def _texts(message: Message) -> Iterator[tuple[str, str]]:
    for name in _LIMITS:
        yield name, getattr(message, name)
    for name, value in message.headers.items():
        yield "name of a header", name
        yield f"header {name!r}", value


def readable_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as evidence: at most 100, each cut at 1,000 characters."""
    return {evidence(k, 1000): evidence(v, 1000) for k, v in list(headers.items())[:100]}
