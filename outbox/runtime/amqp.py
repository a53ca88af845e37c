"""What py-amqp needs around it: reads that end, and a connection's arguments from a URL.

Imports no client: it is given py-amqp's connection.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from outbox.runtime.drivers import InvalidBroker

STALL: Final = 10.0
"""Seconds that a single read or write may stand still; nothing hangs for ever (R5)."""

_FAREWELL: Final = 1.0
"""Seconds that a polite close waits for the broker."""

_SOCKET_SETTINGS: Final = (
    {socket.TCP_USER_TIMEOUT: round(STALL * 1000)} if hasattr(socket, "TCP_USER_TIMEOUT") else {}
)
"""A setting of Linux, in milliseconds. py-amqp's default of 1 s resets the connection at each
stutter of the network (R9)."""

_PORTS: Final = {"amqp": 5672, "amqps": 5671}


class Reader:
    """Stands in for ``blocking_read`` of one py-amqp connection, through which all its reads go.

    py-amqp's own spins when a frame stops half-way and its timeouts start anew with each frame.
    Here ``deadline`` (monotonic seconds) ends whatever py-amqp itself waits for (R3, R5).
    """

    def __init__(self, connection: Any, deadline: float) -> None:
        """Take over the reads of a connection that is not connected yet."""
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


@dataclass(frozen=True, slots=True)
class Target:
    """A broker's URL, taken apart."""

    secure: bool
    host: str
    port: int
    user: str
    password: str
    virtual_host: str

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.virtual_host.removeprefix('/')}"

    def arguments(self, ssl: Mapping[str, object] | None) -> dict[str, object]:
        """Arguments of py-amqp's connection; ``ssl`` also turns TLS on for an amqp:// URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        secure = self.secure or ssl is not None
        return {
            "host": f"{host}:{self.port}",
            "userid": self.user,
            "password": self.password,
            "virtual_host": self.virtual_host,
            "login_method": "PLAIN",
            # py-amqp compares the certificate's name only when it is told the name.
            "ssl": {"server_hostname": self.host, **(ssl or {})} if secure else False,
        }


def parse(path: str, url: str) -> Target:
    """Take a URL apart; ``path`` names its setting. Raises `InvalidBroker` if it is none.

    Defaults are those of a fresh broker: this host, the protocol's port, guest, ``/``.
    """
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in _PORTS or port == -1 or parts.query:
        raise InvalidBroker(
            f"{path} must look like amqp://user:password@host:5672/ or amqps://…; what would "
            "follow a '?' goes into OPTIONS."
        )
    return Target(
        secure=parts.scheme == "amqps",
        host=parts.hostname or "127.0.0.1",
        port=port or _PORTS[parts.scheme],
        user=urllib.parse.unquote(parts.username or "guest"),
        password=urllib.parse.unquote(parts.password or "guest"),
        virtual_host=urllib.parse.unquote(parts.path[1:]) or "/",
    )


def prepare(  # noqa: PLR0913 - what makes a connection
    amqp: Any,
    target: Target,
    *,
    ssl: Mapping[str, object] | None,
    connect_timeout: float,
    heartbeat: int,
    name: str,
    **more: object,
) -> tuple[Any, Reader]:
    """A connection of py-amqp (the module ``amqp``) that is not connected yet, and its reads."""
    connection = amqp.Connection(
        **target.arguments(ssl),
        connect_timeout=connect_timeout,
        heartbeat=heartbeat,
        socket_settings=_SOCKET_SETTINGS,
        client_properties={"connection_name": name},
        confirm_publish=False,
        **more,
    )
    return connection, Reader(connection, time.monotonic() + connect_timeout)


@contextlib.contextmanager
def visiting(connection: Any, reader: Reader) -> Iterator[None]:
    """Connect, and take leave at the end."""
    try:
        connection.connect()
        connection.sock.settimeout(STALL)
        reader.deadline = time.monotonic() + STALL
        yield
    finally:
        take_leave(connection, reader)
        with contextlib.suppress(Exception):
            connection.collect()


def take_leave(connection: Any, reader: Reader) -> None:
    """Close politely, and do not wait long for the answer."""
    with contextlib.suppress(Exception):
        reader.deadline = time.monotonic() + _FAREWELL
        connection.sock.settimeout(_FAREWELL)
        connection.close()
