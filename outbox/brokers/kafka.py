"""Publisher for Kafka, over confluent-kafka (librdkafka): idempotent, acks=all, by callback."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from outbox.brokers import librdkafka
from outbox.brokers.base import (
    Address,
    Confirm,
    Publisher,
    Status,
)
from outbox.brokers.kafka_errors import HOPELESS, reason, text_of, verdict
from outbox.conf import get_settings
from outbox.exceptions import BrokerError, BrokerMisconfigured, BrokerUnavailable
from outbox.runtime import kafka_topics
from outbox.runtime.drivers import read_options, require_client
from outbox.runtime.settings import Fault
from outbox.runtime.topology import Shape, TopologyObject
from outbox.wire import Message, to_headers
from outbox.wire.headers import KAFKA_PREFIX

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT: Final = 5.0
"""Seconds in which `KafkaPublisher.open` must have seen a broker."""

_LOOK: Final = 0.5
"""Seconds of one look for a broker; between looks the errors of the client are read."""


_orphans: list[object] = []
"""Producers of a parent process: to destroy one in the child would wait for threads that are not
there, with locks that nobody gives back."""


@dataclass(frozen=True, slots=True)
class _Options:
    window: int = 10_000


class KafkaPublisher(Publisher):
    """Produce to Kafka; a submission is ACKED by its own delivery callback and by nothing else.

    Address: ``topic`` (default: the message's). Options: ``window``; every other key is
    librdkafka's, such as ``bootstrap.servers``, which may also be given as the URL
    ``kafka://host:port,host:port``.
    """

    def __init__(self, alias: str, url: str, options: Mapping[str, object]) -> None:
        """Keep the settings. Raises `InvalidBroker` for those that we can judge."""
        super().__init__(alias, url, options)
        require_client(self.path, "confluent_kafka", extra="kafka")
        own = {key: value for key, value in options.items() if key in librdkafka.OWN}
        self.window = read_options(f"{self.path}['OPTIONS']", own, _Options).window
        self._config = librdkafka.configure(self.path, url, options, get_settings().lease)
        self._producer: Producer | None = None
        self._answers: list[Confirm] = []
        self._failure: BrokerError | None = None
        self._trouble = ""

    def open(self) -> None:
        """Make a producer and wait until a broker has answered it, 5 s at most."""
        self._check_owner()
        if self._producer is not None:
            return
        from confluent_kafka import KafkaException, Producer

        callbacks = {"error_cb": self._on_error, "logger": logger}
        try:
            self._producer = Producer({**self._config, **callbacks})
        except (KafkaException, TypeError, ValueError) as error:
            raise BrokerMisconfigured(f"{self.path}['OPTIONS']: {text_of(error)}") from error
        try:
            self._await_broker()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Throw away what is queued and let the producer go.

        A request that is on its way may still arrive; nothing is sent after this.
        """
        producer, self._producer = self._producer, None
        if producer is not None and self._is_inherited():
            _orphans.append(producer)
        elif producer is not None:
            with contextlib.suppress(Exception):
                producer.purge()
                producer.poll(0)
        self._answers.clear()
        self._failure = None
        self._trouble = ""

    def check(self) -> list[Fault]:
        """Warn where a broker that dies may take confirmed messages with it (W005)."""
        return librdkafka.doubts(self.path, self._config)

    def submit(self, message: Message, address: Address) -> None:
        """Queue one message; wait for room, CONFIRM_TIMEOUT at most, if the queue is full."""
        producer = self._ready()
        if self._failure is not None:
            self._fail()
        topic = address.get("topic", message.topic)
        headers: dict[str, Any] = to_headers(message, KAFKA_PREFIX)
        produce = functools.partial(
            producer.produce,
            topic,
            message.body,
            message.key or None,
            headers=headers,
            timestamp=int(message.time.timestamp() * 1000),
            on_delivery=functools.partial(self._on_delivery, message.id, topic),
        )
        from confluent_kafka import KafkaException

        try:
            self._produce(produce)
        except KafkaException as error:
            self._on_refusal(message.id, topic, error)
        except ValueError as error:
            self._answers.append(Confirm(message.id, Status.NACKED, f"not sent: {error}"))

    def confirms(self, timeout: float) -> list[Confirm]:
        """Serve the callbacks, and with them librdkafka's log and errors."""
        self._ready()
        deadline = time.monotonic() + timeout
        self._serve(0)
        while not self._answers and self._failure is None:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._serve(left)
        # What was answered before the failure stands; the failure is raised by the next call.
        if self._failure is not None and not self._answers:
            self._fail()
        answers, self._answers = self._answers, []
        return answers

    def topology(
        self, addresses: Iterable[Address], shape: Shape, *, declare: bool
    ) -> list[TopologyObject]:
        """The topics that the addresses name."""
        names = sorted({address["topic"] for address in addresses if "topic" in address})
        self.open()
        from confluent_kafka import KafkaException, admin

        try:
            known = self._ready().list_topics(timeout=_CONNECT_TIMEOUT).topics
            objects = kafka_topics.look(known, names, shape)
            return kafka_topics.create(admin, self._config, objects, shape) if declare else objects
        except KafkaException as error:
            self._fail(error)

    def _ready(self) -> Producer:
        self._check_owner()
        if self._producer is None:
            raise BrokerUnavailable(f"The publisher of broker {self.alias!r} is not connected.")
        return self._producer

    def _await_broker(self) -> None:
        from confluent_kafka import KafkaException

        deadline = time.monotonic() + _CONNECT_TIMEOUT
        while True:
            try:
                self._ready().list_topics(timeout=_LOOK)
            except KafkaException as error:
                self._serve(0)
                if self._failure is not None or time.monotonic() > deadline:
                    self._fail(error)
            else:
                # A broker that is down beside one that is up.
                self._failure = None
                return

    def _produce(self, produce: functools.partial[None]) -> None:
        deadline = time.monotonic() + get_settings().confirm_timeout.total_seconds()
        while True:
            try:
                produce()
            except BufferError as error:
                # Also delivered messages take room until their callbacks are served (F9).
                self._serve(0.01)
                if self._failure is not None or time.monotonic() > deadline:
                    self._fail(error)
            else:
                return

    def _serve(self, timeout: float) -> None:
        """Run the callbacks that are due, and note the fatal error, which is raised here (F4)."""
        from confluent_kafka import KafkaException

        try:
            self._ready().poll(timeout)
        except KafkaException as error:
            self._failure = BrokerUnavailable(f"Broker {self.alias!r}: {text_of(error)}")
            self._failure.__cause__ = error

    def _on_delivery(
        self, message_id: uuid.UUID, topic: str, error: KafkaError | None, _: Any
    ) -> None:
        if error is None:
            self._answers.append(Confirm(message_id, Status.ACKED))
        else:
            self._answers.append(Confirm(message_id, verdict(error), reason(error, topic)))

    def _on_refusal(self, message_id: uuid.UUID, topic: str, error: Exception) -> None:
        """produce() raised: the message was not queued, so there is no doubt about it."""
        cause: KafkaError = error.args[0]
        if cause.name() == "_FATAL":
            self._fail(error)
        status = Status.RETURNED if verdict(cause) is Status.RETURNED else Status.NACKED
        self._answers.append(Confirm(message_id, status, reason(cause, topic)))

    def _on_error(self, error: KafkaError) -> None:
        if error.name() in HOPELESS:
            self._failure = BrokerMisconfigured(f"Broker {self.alias!r}: {reason(error)}")
        elif error.name() == "_ALL_BROKERS_DOWN":
            text = f"Broker {self.alias!r}: {error.str()}; {self._trouble}".rstrip("; ")
            self._failure = self._failure or BrokerUnavailable(text)
        else:
            self._trouble = error.str()

    def _fail(self, cause: Exception | None = None) -> NoReturn:
        """Let the producer go, everything in flight is unknown; raise the failure noted or this."""
        text = f"Broker {self.alias!r}: {cause and text_of(cause)}; {self._trouble}".rstrip("; ")
        failure = self._failure or BrokerUnavailable(text)
        self.close()
        raise failure from cause or failure.__cause__
