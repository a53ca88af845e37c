"""An AMQP 0-9-1 server that says what the test tells it to: late, twice, too much, or nothing.

It speaks just enough for py-amqp to connect, open a channel, select confirms, declare an exchange
and publish. One connection at a time; the methods may be called from the test's thread.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from amqp.serialization import decode_properties_basic, dumps, loads

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
CONNECTION, CHANNEL, EXCHANGE, BASIC, CONFIRM = 10, 20, 40, 60, 85


@dataclass(frozen=True, slots=True)
class Published:
    tag: int
    exchange: str
    routing_key: str
    mandatory: bool
    properties: dict[str, Any]
    body: bytes


class FakeBroker:
    """Use as a context manager; ``published`` is what has arrived on the channel in use."""

    def __init__(self, *, greets: bool = True, heartbeat_every: float = 0) -> None:
        """``greets=False`` accepts connections and never says hello.

        ``heartbeat_every`` sends a heartbeat that often, in seconds, on each connection.
        """
        self.published: list[Published] = []
        self.connections = 0
        self.client_closed = threading.Event()
        self._greets = greets
        self._heartbeat_every = heartbeat_every
        self._changed = threading.Condition()
        self._write_lock = threading.Lock()
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._socket: socket.socket | None = None
        self._threads = [threading.Thread(target=self._accept)]
        if heartbeat_every:
            self._threads.append(threading.Thread(target=self._chatter))

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._listener.getsockname()[1]}//"

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self.hang_up()
        # close() alone does not wake accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def wait_for(self, count: int) -> list[Published]:
        """Everything published, once it is this much."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.published) >= count, 10)
            return list(self.published)

    # What the broker says.

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        self._send(BASIC, 80, "Lb", (tag, multiple))

    def nack(self, tag: int, *, multiple: bool = False) -> None:
        self._send(BASIC, 120, "Lb", (tag, multiple))

    def give_back(self, tag: int) -> None:
        """``basic.return`` of a message; its ack is sent separately, as RabbitMQ does."""
        self.give_back_id(self.published[tag - 1].properties["message_id"])

    def give_back_id(self, message_id: str) -> None:
        arguments = dumps("Bsss", (312, "NO_ROUTE", "events", "nowhere"))
        # Property flag 0x0080 is message-id; the body is empty.
        content = struct.pack(">HHQH", BASIC, 0, 0, 0x0080) + dumps("s", (message_id,))
        method = struct.pack(">HH", BASIC, 50) + arguments
        self._write(_frame(METHOD, 1, method) + _frame(HEADER, 1, content))

    def heartbeat(self) -> None:
        self._write(_frame(HEARTBEAT, 0, b""))

    def close_channel(self, code: int, text: str) -> None:
        self._send(CHANNEL, 40, "BsBB", (code, text, BASIC, 40))

    def close_connection(self, code: int, text: str) -> None:
        self._send(CONNECTION, 50, "BsBB", (code, text, 0, 0), channel=0)

    def block(self) -> None:
        self._send(CONNECTION, 60, "s", ("low on memory",), channel=0)

    def unblock(self) -> None:
        self._send(CONNECTION, 61, "", (), channel=0)

    def garble(self) -> None:
        """A complete frame that means nothing."""
        self._write(b"\x00" * 64)

    def stutter(self) -> None:
        """Half a frame."""
        self._write(_frame(METHOD, 1, b"\x00" * 64)[:9])

    def hang_up(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    # How it works.

    def _send(
        self, class_id: int, method_id: int, layout: str, values: tuple[Any, ...], channel: int = 1
    ) -> None:
        payload = struct.pack(">HH", class_id, method_id) + dumps(layout, values)
        self._write(_frame(METHOD, channel, payload))

    def _write(self, data: bytes) -> None:
        with self._write_lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.sendall(data)

    def _chatter(self) -> None:
        while not self._stopped.wait(self._heartbeat_every):
            self.heartbeat()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            # What is sent arrives at once, so that a test need not wait for it.
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connected:
                self._socket = connected
                self.connections += 1
                self.client_closed.clear()
                with contextlib.suppress(OSError, EOFError):
                    self._converse(connected)
                self._socket = None
                self.client_closed.set()

    def _converse(self, connected: socket.socket) -> None:
        _receive(connected, 8)
        if self._greets:
            capabilities = {"connection.blocked": True, "basic.nack": True}
            start = (0, 9, {"capabilities": capabilities}, "PLAIN", "en_US")
            self._send(CONNECTION, 10, "ooFSS", start, channel=0)
        while True:
            kind, channel, payload = _receive_frame(connected)
            if kind == METHOD:
                self._obey(connected, channel, payload)

    def _obey(self, connected: socket.socket, channel: int, payload: bytes) -> None:
        method = struct.unpack(">HH", payload[:4])
        if method == (CONNECTION, 11):  # start-ok
            self._send(CONNECTION, 30, "BlB", (2047, 131072, 0), channel=0)
        elif method == (CONNECTION, 40):  # open
            self._send(CONNECTION, 41, "s", ("",), channel=0)
        elif method == (CONNECTION, 50):  # close
            self._send(CONNECTION, 51, "", (), channel=0)
        elif method == (CHANNEL, 10):  # open
            self.published.clear()
            self._send(CHANNEL, 11, "S", ("",), channel=channel)
        elif method == (EXCHANGE, 10):  # declare
            self._send(EXCHANGE, 11, "", (), channel=channel)
        elif method == (CONFIRM, 10):  # select
            self._send(CONFIRM, 11, "", (), channel=channel)
        elif method == (BASIC, 40):  # publish
            self._take(connected, payload)

    def _take(self, connected: socket.socket, payload: bytes) -> None:
        (_, exchange, routing_key, mandatory, _), _ = loads("Bssbb", payload, 4)
        _, _, header = _receive_frame(connected)
        size = struct.unpack(">Q", header[4:12])[0]
        body = b""
        while len(body) < size:
            body += _receive_frame(connected)[2]
        properties, _ = decode_properties_basic(header, 12)
        with self._changed:
            tag = len(self.published) + 1
            self.published.append(
                Published(tag, exchange, routing_key, bool(mandatory), properties, body)
            )
            self._changed.notify_all()


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def _receive_frame(connected: socket.socket) -> tuple[int, int, bytes]:
    kind, channel, size = struct.unpack(">BHI", _receive(connected, 7))
    return kind, channel, _receive(connected, size + 1)[:-1]


def _receive(connected: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connected.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
