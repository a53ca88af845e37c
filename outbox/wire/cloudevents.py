"""Message ↔ transport headers, after CloudEvents 1.0 in binary mode."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Final

from outbox.wire import codecs, headers
from outbox.wire.errors import DecodeError
from outbox.wire.message import Message

_VERSION: Final = "1.0"
_ATTRIBUTES = frozenset(
    {headers.SPECVERSION, headers.ID, headers.SOURCE, headers.TYPE, headers.TIME, headers.KEY}
)


def format_time(time: dt.datetime) -> str:
    """RFC 3339 in UTC with ``Z``, to the microsecond."""
    return time.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def to_headers(message: Message, prefix: str) -> dict[str, str]:
    """All headers of a message for a transport with this prefix; the body travels beside them."""
    result = dict(message.headers)
    result[headers.CONTENT_TYPE] = message.content_type
    result[prefix + headers.SPECVERSION] = _VERSION
    result[prefix + headers.ID] = str(message.id)
    result[prefix + headers.SOURCE] = message.source
    result[prefix + headers.TYPE] = message.topic
    result[prefix + headers.TIME] = format_time(message.time)
    if message.key:
        result[prefix + headers.KEY] = message.key
    return result


def from_headers(fields: Mapping[str, str], body: bytes) -> Message:
    """Rebuild the message that `to_headers` took apart, whichever known prefix it was given.

    Raises `DecodeError` that names the attribute that is missing or malformed. A version is not
    asked for, since change data capture sends none, but another one than 1.0 is refused. The body
    is not looked at.
    """
    attributes: dict[str, str] = {}
    own: dict[str, str] = {}
    content_type = codecs.JSON
    for name, value in fields.items():
        attribute = _attribute(name)
        if attribute is not None:
            attributes[attribute] = value
        elif name.lower() == headers.CONTENT_TYPE:
            content_type = value
        else:
            own[name] = value
    version = attributes.get(headers.SPECVERSION, _VERSION)
    if version != _VERSION:
        raise DecodeError(
            f"The CloudEvents attribute 'specversion' is {version[:100]!r}, not {_VERSION!r}."
        )
    return Message(
        id=_uuid(_required(attributes, headers.ID)),
        topic=_required(attributes, headers.TYPE),
        source=_required(attributes, headers.SOURCE),
        time=_time(_required(attributes, headers.TIME)),
        key=attributes.get(headers.KEY, ""),
        content_type=content_type,
        headers=own,
        body=body,
    )


def is_reserved(name: str) -> bool:
    """Whether a header name belongs to the contract, so that a publisher may not set it."""
    return name.lower() == headers.CONTENT_TYPE or name.startswith(headers.PREFIXES)


def _attribute(name: str) -> str | None:
    for prefix in headers.PREFIXES:
        if name.startswith(prefix) and name[len(prefix) :] in _ATTRIBUTES:
            return name[len(prefix) :]
    return None


def _required(attributes: Mapping[str, str], name: str) -> str:
    value = attributes.get(name)
    if not value:
        message = f"The CloudEvents attribute {name!r} is missing."
        raise DecodeError(message)
    return value


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as error:
        message = f"The CloudEvents attribute 'id' is no UUID: {text[:100]!r}."
        raise DecodeError(message) from error


def _time(text: str) -> dt.datetime:
    try:
        time = dt.datetime.fromisoformat(text)
        # Without an offset it is taken as UTC; with one it may lie outside of what UTC can say.
        return time.astimezone(dt.UTC) if time.tzinfo else time.replace(tzinfo=dt.UTC)
    except (ValueError, OverflowError) as error:
        message = f"The CloudEvents attribute 'time' is no RFC 3339 time: {text[:100]!r}."
        raise DecodeError(message) from error
