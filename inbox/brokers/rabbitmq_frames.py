"""Reading of deliveries: headers as text, and what py-amqp cannot take apart.

Whoever may publish can send what py-amqp fails on: a content type or routing key that is no UTF-8,
a date beyond the year 9999, tables nested a thousand deep. Its connection breaks on them, the
broker delivers them again, and the group would stand still for ever. So they are replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from outbox.wire import headers as wire

UNDECODABLE: Final = "undecodable-properties"
"""Header that holds, as hexadecimal digits, the beginning of what could not be decoded."""

_METHOD, _CONTENT_HEADER = 1, 2
_DELIVER: Final = bytes([0, 60, 0, 60])
_TAG: Final = 9
"""Bytes of the delivery tag and of the flag ``redelivered``."""
_FIXED: Final = 12
"""Bytes of a content header before its properties: class, weight, size of the body."""
_KEPT: Final = 500
"""Bytes of evidence."""

_COUNTERS: Final = frozenset({"x-delivery-count", "x-acquired-count"})
"""Headers in which quorum queues count: the queue's business, not the message's."""

Frame = tuple[int, int, bytes]


def tolerant(connection: Any, callback: Callable[..., None]) -> Callable[[Frame], bool]:
    """Stands in for py-amqp's ``frame_handler``."""
    from amqp.method_framing import frame_handler

    handle: Callable[[Frame], bool] = frame_handler(connection, callback)

    def on_frame(frame: Frame) -> bool:
        kind, channel, content = frame
        try:
            if kind == _METHOD and content[:4] == _DELIVER:
                frame = kind, channel, _with_text_key(bytes(content))
            return handle(frame)
        except Exception:
            if kind != _CONTENT_HEADER or _is_readable(content):
                raise
            return handle((kind, channel, _replaced(bytes(content))))

    return on_frame


def text_headers(message: Any) -> dict[str, str]:
    """The headers as text, with the content type among them.

    A foreign message has no attributes of ours; then the native properties are kept as evidence.
    """
    properties = dict(message.properties)
    fields = properties.pop("application_headers", None) or {}
    found = {str(k): _text(v) for k, v in fields.items() if k not in _COUNTERS}
    content_type = properties.pop("content_type", None)
    if content_type is not None:
        found.setdefault(wire.CONTENT_TYPE, _text(content_type))
    if not any(name.startswith(wire.PREFIXES) for name in found):
        for name, value in properties.items():
            found.setdefault(name, _text(value))
    return found


def _text(value: object) -> str:
    try:
        return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    except RecursionError:
        return "nested too deeply"


def _with_text_key(content: bytes) -> bytes:
    """A delivery whose routing key py-amqp can read; nothing depends on the key."""
    at = len(_DELIVER)
    at += 1 + content[at] + _TAG  # the consumer's tag
    at += 1 + content[at]  # the exchange
    key = content[at + 1 :]
    if key.isascii():
        return content
    return content[: at + 1] + bytes(byte if byte < 128 else ord("?") for byte in key)  # noqa: PLR2004 - ASCII


def _is_readable(content: bytes) -> bool:
    import amqp

    try:
        amqp.Message().inbound_header(content)
    except Exception:  # noqa: BLE001 - a failure of any kind is the answer
        return False
    return True


def _replaced(content: bytes) -> bytes:
    import amqp

    evidence = content[_FIXED : _FIXED + _KEPT].hex()
    substitute = amqp.Message(application_headers={UNDECODABLE: evidence})
    return content[:_FIXED] + bytes(substitute._serialize_properties())  # noqa: SLF001 - the inverse of what failed
