"""Consumer for RabbitMQ, over py-amqp (which kombu brings)."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inbox.brokers.base import Consumer
from inbox.delivery import Delivery, Disposition
from inbox.exceptions import ConsumerUnavailable, InvalidBroker
from outbox.runtime.amqp import STALL, Reader, parse
from outbox.runtime.drivers import read_options, require_client
from outbox.runtime.settings import Fault
from outbox.wire import headers as wire

_FAREWELL: Final = 1.0
"""Seconds that a polite close waits for the broker."""

_TICK: Final = 1.0
"""Seconds between two looks at the heartbeat, as py-amqp asks."""

_NAME: Final = 255
"""Bytes in a short string of AMQP 0-9-1, such as the name of a queue."""

_REFUSALS: Final = frozenset({402, 403, 406, 530})
"""Reply codes that time does not cure while opening: no such virtual host, access refused, queue
or exchange with other arguments, not allowed."""

_UNLIMITED_SINCE: Final = 4
"""The major version from which a delivery limit of -1 means unlimited; before, any negative limit
drops at the first return, and none means unlimited (R12)."""

_GARBLED: Final = (struct.error, LookupError, ValueError, TypeError, AttributeError)
"""How py-amqp fails on bytes that it does not understand or on a connection that went away."""

_COUNTERS: Final = frozenset({"x-delivery-count", "x-acquired-count"})
"""Headers in which quorum queues count: the queue's business, not the message's."""


@dataclass(frozen=True, slots=True)
class _Options:
    exchange: str = "events"
    queue_type: str = "quorum"
    delivery_limit: int | None = None
    """None: as often as needed, because our own table counts attempts."""
    dead_letter_exchange: str = ""
    """Empty: ``<group>.dlx``."""
    declare: bool = True
    heartbeat: int = 30
    """Seconds; off by default in py-amqp (R8)."""
    connect_timeout: int | float = 5
    """Seconds for TCP, TLS and handshake."""
    ssl: dict | None = None  # type: ignore[type-arg]  # isinstance() takes no dict[…]


class RabbitMQConsumer(Consumer):
    """Consumes a durable queue ``<group>.<topic>`` for each topic, bound to a topic exchange.

    What is refused for good goes through the exchange ``<group>.dlx`` to the queue
    ``<group>.dead``. Options: those of `_Options` below, each with its default.

    A handler that runs longer than two heartbeats loses the connection; what it did is committed,
    and the delivery that comes again is a duplicate.
    """

    def __init__(  # noqa: PLR0913 - as the base class
        self,
        alias: str,
        url: str,
        options: Mapping[str, object],
        *,
        group: str,
        topics: Sequence[str],
        prefetch: int,
    ) -> None:
        """Raises `InvalidBroker` for options that are wrong and for names that AMQP cannot hold."""
        super().__init__(alias, url, options, group=group, topics=topics, prefetch=prefetch)
        require_client(self.path, "amqp", extra="rabbitmq")
        self._options = read_options(f"{self.path}['OPTIONS']", options, _Options)
        self._target = parse(f"{self.path}['URL']", url)
        self._dlx = self._options.dead_letter_exchange or f"{group}.dlx"
        self._queues = {f"{group}.{topic}": topic for topic in topics}
        self._check_names()
        self._connection: Any = None
        self._channel: Any = None
        self._reader: Any = None
        self._fetched: deque[Delivery] = deque()
        self._unsettled: set[object] = set()
        self._epoch = 0
        self._next_tick = 0.0

    def open(self) -> None:
        """Connect, declare the queues and subscribe, the first within ``connect_timeout``."""
        self._check_process()
        if self._connection is not None:
            return
        with self._translated(opening=True):
            self._connect()
            if self._options.declare:
                self._declare_all()
            self._subscribe()

    def close(self) -> None:
        """Leave; the broker delivers again what is not settled."""
        connection, reader = self._connection, self._reader
        self._connection = self._channel = self._reader = None
        self._fetched.clear()
        self._unsettled.clear()
        # In a forked child a polite close would end the parent's connection.
        if connection is None or reader is None or self._pid != os.getpid():
            return
        with contextlib.suppress(Exception):
            reader.deadline = time.monotonic() + _FAREWELL
            connection.sock.settimeout(_FAREWELL)
            connection.close()
        with contextlib.suppress(Exception):
            connection.collect()

    def check(self) -> list[Fault]:
        """Warn of a limit at which the broker decides before our table does (W003)."""
        limit = self._options.delivery_limit
        if limit is None or limit < 0:
            return []
        return [
            Fault(
                f"{self.path}['OPTIONS']['delivery_limit'] is {limit}: the broker gives up a "
                "message that came so often, while INBOX['MAX_ATTEMPTS'] is what should decide.",
                "Remove it.",
                "W003",
            )
        ]

    def poll(self, timeout: float) -> list[Delivery]:
        """At most one: so that a slow handler does not keep the heartbeat waiting for a batch."""
        self._check_open()
        deadline = time.monotonic() + timeout
        with self._translated():
            self._reader.deadline = max(deadline, time.monotonic() + STALL)
            while True:
                # Before the heartbeat is judged: the broker's own may lie unread.
                while self._reader.wait(0):
                    self._reader.take()
                self._beat()
                if self._fetched and len(self._unsettled) < self.prefetch:
                    delivery = self._fetched.popleft()
                    self._unsettled.add(delivery.tag)
                    return [delivery]
                left = deadline - time.monotonic()
                if left <= 0:
                    return []
                self._reader.wait(min(left, _TICK))

    def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """Ack, or reject: RETRY back into the queue, DEAD to the dead letter exchange."""
        self._check_process()
        if delivery.tag not in self._unsettled or not isinstance(delivery.tag, tuple):
            return
        self._unsettled.discard(delivery.tag)
        _epoch, tag = delivery.tag
        with self._translated():
            self._reader.deadline = time.monotonic() + STALL
            if disposition is Disposition.ACK:
                self._channel.basic_ack(tag)
            else:
                self._channel.basic_reject(tag, requeue=disposition is Disposition.RETRY)

    def _connect(self) -> None:
        import amqp

        self._connection = connection = amqp.Connection(
            **self._target.arguments(self._options.ssl),
            connect_timeout=self._options.connect_timeout,
            heartbeat=self._options.heartbeat,
            # py-amqp's default of 1 s resets the connection at each stutter of the network (R9).
            socket_settings={socket.TCP_USER_TIMEOUT: round(STALL * 1000)},
            client_properties={"connection_name": f"inbox {self.group} {os.getpid()}"},
        )
        self._reader = Reader(connection, time.monotonic() + self._options.connect_timeout)
        connection.connect()
        connection.sock.settimeout(STALL)
        self._reader.deadline = time.monotonic() + STALL
        self._epoch += 1
        self._channel = connection.channel()
        # Bytes are the codecs' business; a false content-encoding must not raise here.
        self._channel.auto_decode = False

    def _declare_all(self) -> None:
        channel, durable = self._channel, {"durable": True, "auto_delete": False}
        channel.exchange_declare(self._options.exchange, type="topic", **durable)
        channel.exchange_declare(self._dlx, type="fanout", **durable)
        dead, of_type = f"{self.group}.dead", {"x-queue-type": self._options.queue_type}
        channel.queue_declare(dead, arguments=of_type, **durable)
        channel.queue_bind(dead, self._dlx)
        for queue, topic in self._queues.items():
            arguments = {**of_type, "x-dead-letter-exchange": self._dlx, **self._delivery_limit()}
            channel.queue_declare(queue, arguments=arguments, **durable)
            channel.queue_bind(queue, self._options.exchange, routing_key=topic)

    def _delivery_limit(self) -> dict[str, int]:
        if self._options.queue_type != "quorum":
            return {}
        if self._options.delivery_limit is not None:
            return {"x-delivery-limit": self._options.delivery_limit}
        version = str(self._connection.server_properties.get("version", ""))
        major = version.partition(".")[0]
        unlimited = major.isdigit() and int(major) >= _UNLIMITED_SINCE
        return {"x-delivery-limit": -1} if unlimited else {}

    def _subscribe(self) -> None:
        # RabbitMQ counts for each subscription by itself.
        share = max(1, self.prefetch // len(self._queues))
        self._channel.basic_qos(0, share, False)
        for queue in self._queues:
            self._channel.basic_consume(queue, no_ack=False, callback=self._on_message)

    def _on_message(self, message: Any) -> None:
        redelivered = bool(message.delivery_info.get("redelivered"))
        tag = (self._epoch, message.delivery_tag)
        body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
        self._fetched.append(Delivery(self.group, _headers(message), body, redelivered, tag))

    def _beat(self) -> None:
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + _TICK
            self._connection.heartbeat_tick()

    def _check_open(self) -> None:
        self._check_process()
        if self._connection is None:
            message = f"The consumer of broker {self.alias!r} is not connected."
            raise ConsumerUnavailable(message)

    def _check_names(self) -> None:
        for queue in self._queues:
            if len(queue.encode()) > _NAME:
                message = f"AMQP 0-9-1 takes names up to {_NAME} bytes, not {queue!r}."
                raise InvalidBroker(message)
        if f"{self.group}.dead" in self._queues:
            message = f"Group {self.group!r}: topic 'dead' would share the dead letter queue."
            raise InvalidBroker(message)

    @contextlib.contextmanager
    def _translated(self, *, opening: bool = False) -> Iterator[None]:
        """Raise our errors only, and drop the connection with any: half a frame may be out."""
        try:
            yield
        except (ConsumerUnavailable, InvalidBroker):
            self.close()
            raise
        except Exception as error:
            self.close()
            from amqp.exceptions import AMQPError

            text = f"Broker {self.alias!r} at {self._target}: {str(error) or type(error).__name__}"
            if opening and getattr(error, "reply_code", None) in _REFUSALS:
                raise InvalidBroker(text) from error
            if isinstance(error, (AMQPError, OSError, *_GARBLED)):
                raise ConsumerUnavailable(text) from error
            raise


def _headers(message: Any) -> dict[str, str]:
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
