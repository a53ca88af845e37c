"""Consumer for RabbitMQ, over py-amqp (which kombu brings)."""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inbox.brokers.base import Consumer
from inbox.brokers.rabbitmq_frames import text_headers, tolerant
from inbox.delivery import Delivery, Disposition
from inbox.exceptions import ConsumerUnavailable, InvalidBroker
from outbox.runtime.amqp import STALL, Reader, parse, prepare, take_leave, visiting
from outbox.runtime.amqp_topology import Binding, Exchange, Queue, Survey, Wanted, advice, missing
from outbox.runtime.drivers import read_options, require_client
from outbox.runtime.settings import Fault
from outbox.runtime.topology import Shape, TopologyObject

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
        """Connect, declare or ask for the queues, subscribe; the first in ``connect_timeout``."""
        self._check_process()
        if self._connection is not None:
            return
        with self._translated(opening=True):
            self._connect()
            self._require_all()
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
        take_leave(connection, reader)
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

    def topology(self, shape: Shape, *, declare: bool) -> list[TopologyObject]:
        """The exchange, the group's queues with their bindings, and where dead letters go."""
        del shape  # of Kafka's topics
        self._check_process()
        with self._translated(opening=True):
            connection, reader = self._prepare()
            with visiting(connection, reader):
                survey = Survey(connection, reader, declare=declare)
                return survey.look(self._wanted(connection.server_properties))

    def _prepare(self) -> tuple[Any, Reader]:
        import amqp

        return prepare(
            amqp,
            self._target,
            ssl=self._options.ssl,
            connect_timeout=self._options.connect_timeout,
            heartbeat=self._options.heartbeat,
            name=f"inbox {self.group} {os.getpid()}",
            frame_handler=tolerant,
        )

    def _connect(self) -> None:
        self._connection, self._reader = connection, reader = self._prepare()
        connection.connect()
        connection.sock.settimeout(STALL)
        reader.deadline = time.monotonic() + STALL
        self._epoch += 1
        self._channel = connection.channel()
        # Bytes are the codecs' business; a false content-encoding must not raise here.
        self._channel.auto_decode = False

    def _require_all(self) -> None:
        wanted = self._wanted(self._connection.server_properties)
        if self._options.declare:
            for each in wanted:
                each.declare(self._channel)
        elif absent := missing(self._channel, wanted):
            # No refusal: somebody may be about to run the command, so that waiting helps.
            message = (
                f"Broker {self.alias!r} at {self._target} has no {', '.join(absent)}. Create it "
                f"with an account that may: inbox_topology --declare --group {self.group}"
            )
            raise ConsumerUnavailable(message)

    def _wanted(self, server: Mapping[str, object]) -> list[Wanted]:
        dead, of_type = f"{self.group}.dead", {"x-queue-type": self._options.queue_type}
        wanted: list[Wanted] = [
            Exchange(self._options.exchange),
            Exchange(self._dlx, "fanout"),
            Queue(dead, of_type),
            Binding(self._dlx, dead),
        ]
        limit = self._delivery_limit(str(server.get("version", "")))
        for queue, topic in self._queues.items():
            arguments = {**of_type, "x-dead-letter-exchange": self._dlx, **limit}
            wanted += [Queue(queue, arguments), Binding(self._options.exchange, queue, topic)]
        return wanted

    def _delivery_limit(self, version: str) -> dict[str, int]:
        if self._options.queue_type != "quorum":
            return {}
        if self._options.delivery_limit is not None:
            return {"x-delivery-limit": self._options.delivery_limit}
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
        self._fetched.append(Delivery(self.group, text_headers(message), body, redelivered, tag))

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
                raise InvalidBroker(text + advice(error)) from error
            if isinstance(error, (AMQPError, OSError, *_GARBLED)):
                raise ConsumerUnavailable(text) from error
            raise
