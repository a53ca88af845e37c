"""Publisher for RabbitMQ, over py-amqp (which kombu brings), with a confirm ledger of its own.

Never with ``confirm_publish`` of kombu or py-amqp: it takes any ack for the message at hand, so a
late one of message 1 "confirms" message 2 (R1), and heartbeats prolong its timeout (R3).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from outbox.brokers.base import (
    Address,
    Confirm,
    Publisher,
    Status,
)
from outbox.brokers.ledger import Ledger
from outbox.brokers.rabbitmq_errors import translate
from outbox.exceptions import BrokerError, BrokerMisconfigured, BrokerUnavailable
from outbox.runtime.amqp import STALL, Reader, parse, prepare, take_leave, visiting
from outbox.runtime.amqp_topology import Exchange, Survey, missing
from outbox.runtime.drivers import read_options, require_client
from outbox.runtime.topology import Shape, TopologyObject
from outbox.wire import Message, to_headers
from outbox.wire.headers import CONTENT_TYPE, ID, RABBITMQ_PREFIX

_TICK: Final = 1.0
"""Seconds between two looks at the heartbeat, as py-amqp asks."""

_NAME: Final = 255
"""Bytes in a short string of AMQP 0-9-1: exchange, routing key, names of headers."""


@dataclass(frozen=True, slots=True)
class _Options:
    exchange: str = "events"
    window: int = 1000
    heartbeat: int = 30
    """Seconds; off by default in py-amqp (R8)."""
    connect_timeout: int | float = 5
    """Seconds for TCP, TLS and handshake."""
    declare: bool = True
    ssl: dict | None = None  # type: ignore[type-arg]  # isinstance() takes no dict[…]


class RabbitMQPublisher(Publisher):
    """Publish to a topic exchange, many at a time, each confirmed by its own delivery tag.

    Address: ``exchange`` (default: the option), ``routing_key`` (default: the topic). Options:
    ``exchange``, ``window``, ``heartbeat``, ``connect_timeout``, ``declare`` and ``ssl``.
    """

    def __init__(self, alias: str, url: str, options: Mapping[str, object]) -> None:
        """Keep the settings. Raises `InvalidBroker` for a URL or options that are wrong."""
        super().__init__(alias, url, options)
        require_client(self.path, "kombu", extra="rabbitmq")
        self._options = read_options(f"{self.path}['OPTIONS']", options, _Options)
        self.window = self._options.window
        self._target = parse(f"{self.path}['URL']", url)
        self._connection: Any = None
        self._channel: Any = None
        self._reader: Any = None
        self._message: Any = None
        self._ledger = Ledger()
        self._blocked = False
        self._next_tick = 0.0

    def open(self) -> None:
        """Connect, select confirms and declare the exchange, all within ``connect_timeout``."""
        self._check_owner()
        if self._connection is not None:
            return
        try:
            self._connect()
        except BaseException as error:  # noqa: BLE001 - re-raised there, after the connection is dropped
            self._fail(error)

    def close(self) -> None:
        """Take leave of the broker, or in a forked child drop our copy of the parent's socket."""
        if self._connection is not None and not self._is_inherited():
            take_leave(self._connection, self._reader)
        self._drop()

    def submit(self, message: Message, address: Address) -> None:
        """Write one message; raise `BrokerUnavailable` while the broker blocks publishers (R6)."""
        self._check_owner()
        try:
            self._check_open()
            self._check_blocked()
            self._publish(message, address)
            self._beat()
        except BaseException as error:  # noqa: BLE001 - as in open()
            self._fail(error)

    def confirms(self, timeout: float) -> list[Confirm]:
        """Read everything that is there; wait once, if there is no answer yet."""
        self._check_owner()
        deadline = time.monotonic() + timeout
        try:
            self._check_open()
            self._reader.deadline = max(deadline, time.monotonic() + STALL)
            while True:
                # Before the heartbeat is judged: the broker's own may lie unread.
                while self._reader.wait(0):
                    self._reader.take()
                self._beat()
                answers = self._ledger.take()
                left = deadline - time.monotonic()
                if answers or left <= 0:
                    return answers
                self._reader.wait(min(left, _TICK))
        except BaseException as error:  # noqa: BLE001 - as in open()
            self._fail(error)

    def topology(
        self, addresses: Iterable[Address], shape: Shape, *, declare: bool
    ) -> list[TopologyObject]:
        """The exchanges; those that only an address names may be of any type."""
        del shape  # of Kafka's topics
        self._check_owner()
        named = {address.get("exchange", self._options.exchange) for address in addresses}
        others = sorted(named - {self._options.exchange, ""})
        wanted = [*self._exchange(), *(Exchange(name, type=None) for name in others)]
        connection, reader = self._prepare()
        try:
            with visiting(connection, reader):
                return Survey(connection, reader, declare=declare).look(wanted)
        except Exception as error:
            raise self._translate(error) from error

    def _exchange(self) -> list[Exchange]:
        # The default exchange exists, and RabbitMQ refuses to declare it.
        return [Exchange(self._options.exchange)] if self._options.exchange else []

    def _prepare(self, **callbacks: object) -> tuple[Any, Reader]:
        import amqp

        return prepare(
            amqp,
            self._target,
            ssl=self._options.ssl,
            connect_timeout=self._options.connect_timeout,
            heartbeat=self._options.heartbeat,
            name=f"outbox {self.alias} {os.getpid()}",
            **callbacks,
        )

    def _connect(self) -> None:
        import amqp

        self._message = amqp.Message
        self._connection, self._reader = connection, _ = self._prepare(
            on_blocked=self._on_blocked, on_unblocked=self._on_unblocked
        )
        connection.connect()
        self._reader.sock.settimeout(STALL)
        self._channel = channel = connection.channel()
        channel.events["basic_ack"].add(self._ledger.ack)
        channel.events["basic_nack"].add(self._ledger.nack)
        channel.events["basic_return"].add(self._ledger.returned)
        if self._options.declare:
            for exchange in self._exchange():
                exchange.declare(channel)
        elif absent := missing(channel, self._exchange()):
            raise BrokerMisconfigured(
                f"Broker {self.alias!r} at {self._target} has no {absent[0]}. Create it with an "
                "account that may: outbox_topology --declare. Or set OPTIONS['exchange']."
            )
        channel.confirm_select()

    def _publish(self, message: Message, address: Address) -> None:
        if message.id in self._ledger:
            raise BrokerError(f"Message {message.id} is submitted again before its answer.")
        headers = to_headers(message, RABBITMQ_PREFIX)
        content = self._message(
            message.body,
            content_type=headers.pop(CONTENT_TYPE),
            application_headers=headers,
            delivery_mode=2,
            message_id=headers[RABBITMQ_PREFIX + ID],
            timestamp=max(0, int(message.time.timestamp())),
            type=message.topic,
            app_id=message.source,
        )
        exchange = address.get("exchange", self._options.exchange)
        routing_key = address.get("routing_key", message.topic)
        misfit = self._misfit(headers, exchange, routing_key, message)
        if misfit:
            self._ledger.answer(Confirm(message.id, Status.NACKED, misfit))
            return
        self._reader.deadline = time.monotonic() + STALL
        # Without confirm_publish this writes and does not wait. It reads one frame before, so that
        # the broker is never stuck with acks that nobody takes while we are stuck writing (R18).
        self._channel.basic_publish(
            content, exchange=exchange, routing_key=routing_key, mandatory=True
        )
        self._ledger.add(message.id)

    def _misfit(
        self, headers: Mapping[str, str], exchange: str, routing_key: str, message: Message
    ) -> str:
        """Why AMQP cannot carry the message, if so: asked before a byte is written."""
        names = (exchange, routing_key, message.topic, message.source, message.content_type)
        for name in (*names, *headers):
            # No character takes more than four bytes in UTF-8.
            if len(name) * 4 > _NAME and _bytes(name) > _NAME:
                return f"AMQP 0-9-1 takes names up to {_NAME} bytes, not {name[:40]!r}…"
        # Headers cannot be split over frames; the rest of their frame takes less than 2 KiB.
        size = sum(map(len, headers.values())) * 4 + len(headers) * _NAME
        limit = self._connection.frame_max - 2048
        if size > limit and sum(_bytes(k + v) + 6 for k, v in headers.items()) > limit:
            return f"The headers take more than {limit} bytes, which is what a frame can hold."
        return ""

    def _check_open(self) -> None:
        if self._connection is None:
            raise BrokerUnavailable(f"The publisher of broker {self.alias!r} is not connected.")

    def _check_blocked(self) -> None:
        if self._blocked:
            raise BrokerUnavailable(
                f"Broker {self.alias!r} blocks publishers: a memory or disk alarm, see its log."
            )

    def _beat(self) -> None:
        """Send our heartbeat when due; fail when two of the broker's are missing."""
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + _TICK
            self._connection.heartbeat_tick()

    def _on_blocked(self, _reason: str) -> None:
        self._blocked = True

    def _on_unblocked(self) -> None:
        self._blocked = False

    def _fail(self, error: BaseException) -> NoReturn:
        """Drop the connection, whatever happened: half a frame may be out. Then raise our error.

        What is neither the broker's nor the network's, such as a time limit of the process, is
        raised as it is.
        """
        self._drop()
        ours = error if isinstance(error, BrokerError) else self._translate(error)
        if ours is error:
            raise error
        raise ours from error

    def _translate(self, error: BaseException) -> BaseException:
        return translate(f"Broker {self.alias!r} at {self._target}", error)

    def _drop(self) -> None:
        reader, self._reader = self._reader, None
        self._connection = self._channel = None
        self._ledger = Ledger()
        self._blocked = False
        self._next_tick = 0.0
        if reader is None or reader.sock is None:
            return
        with contextlib.suppress(OSError):
            if not self._is_inherited():
                # Throw away what the kernel has not sent: it would arrive after close().
                reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            reader.sock.close()


def _bytes(text: str) -> int:
    """How many py-amqp makes of a text."""
    return len(text.encode("utf-8", "surrogatepass"))
