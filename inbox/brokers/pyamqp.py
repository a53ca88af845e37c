"""What py-amqp needs around it: reads that end, a connection's arguments, text headers."""

from __future__ import annotations

import selectors
import time
from collections.abc import Mapping
from typing import Any, Final

from outbox.wire import headers as wire

STALL: Final = 10.0
"""Seconds that a read or a write may stand still; nothing hangs for ever (R5)."""

_COUNTERS: Final = frozenset({"x-delivery-count", "x-acquired-count"})
"""Headers in which quorum queues count: the queue's business, not the message's."""


class Reader:
    """Stands in for ``blocking_read`` of one py-amqp connection, through which all its reads go.

    py-amqp's own spins when a frame stops half-way, and its timeouts start anew with each frame.
    Here ``deadline`` (monotonic seconds) ends whatever py-amqp itself waits for.
    """

    def __init__(self, connection: Any, deadline: float) -> None:
        """Take over the reads of a connection that is not connected yet."""
        self.deadline = deadline
        self._connection = connection
        self._read_frame = connection.blocking_read
        self._sock: Any = None
        # A poll has no file descriptor of its own, which a fork would share.
        self._selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
        connection.blocking_read = self._read

    def wait(self, timeout: float) -> bool:
        """Whether there is something to read, within so many seconds."""
        if self._sock is None:
            self._sock = self._connection.sock
            self._selector.register(self._sock, selectors.EVENT_READ)
        # TLS may hold decrypted bytes that the socket no longer shows.
        pending = getattr(self._sock, "pending", None)
        return bool((pending and pending()) or self._selector.select(timeout))

    def take(self) -> bool:
        """Read a frame that has begun to arrive; whether it completed an event."""
        return bool(self._read_frame(STALL))

    def _read(self, timeout: float | None = None) -> bool:
        left = self.deadline - time.monotonic()
        if left < 0 or not self.wait(left if timeout is None else min(timeout, left)):
            message = "the broker is silent"
            raise TimeoutError(message)
        return self.take()


def target(url: str, ssl: Mapping[str, object] | None) -> dict[str, object]:
    """Arguments of py-amqp's connection for a URL."""
    from kombu.utils.url import parse_url

    parts = parse_url(url)
    secure = ssl is not None or parts["transport"] == "amqps"
    host = parts["hostname"] or "127.0.0.1"
    port = parts["port"] or (5671 if secure else 5672)
    return {
        "host": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "userid": parts["userid"] or "guest",
        "password": parts["password"] or "guest",
        "virtual_host": parts["virtual_host"] or "/",
        "login_method": "PLAIN",
        # py-amqp compares the certificate's name only when it is told the name.
        "ssl": {"server_hostname": host, **(ssl or {})} if secure else False,
    }


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
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
