"""publish(): a message row in the caller's transaction."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from asgiref.sync import sync_to_async
from django.db import router, transaction

from outbox import routes, wakeups, wire
from outbox.conf import OutboxSettings, get_settings
from outbox.exceptions import MessageTooLarge, NotInTransaction
from outbox.ids import uuid7
from outbox.models import OutboxMessage
from outbox.store import stores
from outbox.wire.cloudevents import is_reserved
from outbox.wire.codecs import JSON

_TOPIC: Final = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}\Z")
"""What Kafka allows in a topic's name; an AMQP routing key takes all of it."""
_NAME_SIZE: Final = 255
"""Bytes of a key, a content type or a header's name: AMQP's short strings, and our columns."""
_HEADERS_SIZE: Final = 64 * 1024
"""Bytes of all headers. AMQP sends them in one frame, 128 KiB by default with what we add, and a
larger one ends the connection instead of failing its message."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What `publish` is given, before it is a message: one item of `publish_many`."""

    topic: str
    payload: object
    key: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = JSON


def publish(  # noqa: PLR0913 - all but two are rare, and by name only
    topic: str,
    payload: object,
    *,
    key: str = "",
    headers: Mapping[str, str] | None = None,
    content_type: str = JSON,
    using: str | None = None,
) -> wire.Message:
    """Write a message in the current transaction; it is sent if and only if that commits.

    ``payload`` is encoded at once: what changes later is not sent. With a ``key``, messages of one
    key reach the broker in the order of their publication; without one, nothing waits for
    anything. ``headers`` travel as they are. ``using`` is the database, by default the one that
    the routers name for writing.

    Raises `NotInTransaction`, `UnknownTopic`, `EncodeError`, `MessageTooLarge`, and `ValueError`
    or `TypeError` for a malformed topic, key or header; in each case nothing was written.
    """
    draft = Draft(topic, payload, key, headers or {}, content_type)
    return publish_many([draft], using=using)[0]


def publish_many(drafts: Iterable[Draft], *, using: str | None = None) -> list[wire.Message]:
    """Write many messages in the current transaction, by one statement on PostgreSQL.

    They are checked and encoded first: if one is refused, none is written. Raises as `publish`.
    """
    settings = get_settings()
    alias = using or router.db_for_write(OutboxMessage)
    if settings.require_transaction and not transaction.get_connection(alias).in_atomic_block:
        raise NotInTransaction
    addressed = [
        (_message(draft, settings), routes.resolve(draft.topic).broker) for draft in drafts
    ]
    with transaction.atomic(using=alias, savepoint=False):
        stores[alias].add(addressed)
        for broker in {broker for _message, broker in addressed}:
            wakeups.after_commit(broker, alias)
    return [message for message, _broker in addressed]


async def apublish(  # noqa: PLR0913 - as publish
    topic: str,
    payload: object,
    *,
    key: str = "",
    headers: Mapping[str, str] | None = None,
    content_type: str = JSON,
    using: str | None = None,
) -> wire.Message:
    """`publish` for async code, in the thread that Django's sync code runs in.

    Django has no async transactions: the surrounding `atomic` must be in sync code that the same
    thread runs, or REQUIRE_TRANSACTION be off. Raises as `publish`.
    """
    return await sync_to_async(publish, thread_sensitive=True)(
        topic, payload, key=key, headers=headers, content_type=content_type, using=using
    )


def _message(draft: Draft, settings: OutboxSettings) -> wire.Message:
    _check_topic(draft.topic)
    _check_text("key", draft.key, _NAME_SIZE)
    _check_text("content type", draft.content_type, _NAME_SIZE)
    _check_headers(draft.headers)
    body = wire.encode(draft.payload, draft.content_type)
    if len(body) > settings.max_body:
        message = (
            f"The body of this {draft.topic!r} message has {len(body):,} bytes; "
            f"OUTBOX['MAX_BODY'] is {settings.max_body:,}. Store what is large elsewhere and "
            "publish a reference to it."
        )
        raise MessageTooLarge(message)
    return wire.Message(
        id=uuid7(),
        topic=draft.topic,
        body=body,
        source=settings.source,
        time=dt.datetime.now(dt.UTC),
        key=draft.key,
        content_type=draft.content_type,
        headers=dict(draft.headers),
    )


def _check_topic(topic: object) -> None:
    if not isinstance(topic, str) or not _TOPIC.match(topic):
        message = (
            f"A topic is 1 to 249 letters, digits, dots, dashes or underscores, such as "
            f"'orders.placed'; got {topic!r}."
        )
        raise ValueError(message)


def _check_headers(headers: Mapping[str, str]) -> None:
    if not isinstance(headers, Mapping):
        raise TypeError(f"Headers are a mapping, not {type(headers).__qualname__}.")
    size = 0
    for name, value in headers.items():
        size += _check_text("header name", name, _NAME_SIZE)
        size += _check_text(f"header {name!r}", value, _HEADERS_SIZE)
        if not name or is_reserved(name):
            raise ValueError(
                f"The header {name!r} belongs to the wire format; choose another name."
            )
    if size > _HEADERS_SIZE:
        raise ValueError(f"All headers have at most {_HEADERS_SIZE:,} bytes, not {size:,}.")


def _check_text(what: str, value: str, most: int) -> int:
    """The size in bytes, if it can be stored and sent."""
    if not isinstance(value, str):
        raise TypeError(f"A {what} is text, not {type(value).__qualname__}: use str(...).")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"A {what} must not hold lone surrogates: {value!r}.") from error
    if "\x00" in value:
        raise ValueError(f"A {what} must not hold NUL characters: {value!r}.")
    if size > most:
        raise ValueError(f"A {what} has at most {most:,} bytes in UTF-8, not {size:,}.")
    return size
