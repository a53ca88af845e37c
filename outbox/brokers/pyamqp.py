"""What py-amqp needs around it: reads that end, and a connection's arguments from a URL."""

from __future__ import annotations

import selectors
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

from outbox.exceptions import InvalidBroker

STALL: Final = 10.0
"""Seconds that a single read or write may stand still; nothing hangs for ever (R5)."""


class Reader:
    """Stands in for ``blocking_read`` of one py-amqp connection, through which all its reads go.

    py-amqp's own spins when a frame stops half-way and its timeouts start anew with each frame.
    Here ``deadline`` (monotonic seconds) ends whatever py-amqp itself waits for (R3, R5).
    """

    def __init__(self, connection: Any, deadline: float) -> None:
        self.deadline = deadline
        self.sock: Any = None
        self._connection = connection
        self._read_frame = connection.blocking_read
        # A poll has no file descriptor of its own, which a fork would share.
        self._selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
        connection.blocking_read = self.read

    def read(self, timeout: float | None = None) -> bool:
        """Read one frame; raise `TimeoutError` when none begins in time."""
        left = self.deadline - time.monotonic()
        if left < 0 or not self.wait(left if timeout is None else min(timeout, left)):
            raise TimeoutError("the broker is silent")
        return self.take()

    def take(self) -> bool:
        """Read a frame that has begun to arrive; whether it completed an event."""
        return bool(self._read_frame(STALL))

    def wait(self, timeout: float) -> bool:
        """Whether there is something to read, within so many seconds."""
        if self.sock is None:
            self.sock = self._connection.sock
            self._selector.register(self.sock, selectors.EVENT_READ)
        # TLS may hold decrypted bytes that the socket no longer shows.
        pending = getattr(self.sock, "pending", None)
        return bool((pending and pending()) or self._selector.select(timeout))


def describe(alias: str, url: str) -> str:
    """Host, port and virtual host of a URL, for texts. Raises `InvalidBroker` if it is none."""
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port or ""
    except ValueError:
        port = None
    if parts.scheme not in ("amqp", "amqps") or port is None or parts.query:
        raise InvalidBroker(
            f"OUTBOX['BROKERS'][{alias!r}]['URL'] must look like amqp://user:password@host:5672/ "
            "or amqps://…; what would follow a '?' goes into OPTIONS."
        )
    return f"{parts.hostname}:{port}{parts.path}"


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
