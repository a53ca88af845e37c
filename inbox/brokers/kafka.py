"""Consumer for Kafka, over confluent-kafka (librdkafka): offsets of the contiguous done prefix."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from inbox.brokers.base import Consumer, read_options, require_client
from inbox.brokers.kafka_dead_letters import DeadLetters
from inbox.brokers.librdkafka import OWN, configure, known, text_headers, text_of
from inbox.brokers.offsets import Partition
from inbox.delivery import Delivery, Disposition
from inbox.exceptions import ConsumerUnavailable, InvalidBroker

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, TopicPartition

log = logging.getLogger("inbox")

_CONNECT_TIMEOUT: Final = 5.0
"""Seconds in which `KafkaConsumer.open` must have seen a broker."""

_LOOK: Final = 0.5
"""Seconds of one look for a broker; between looks the errors of the client are read."""

_ROUND: Final = 1.0
"""Seconds after which the client is served although fetched messages are waiting: each call tells
the group that we live (max.poll.interval.ms), and commits what is done."""

_REFUSED: Final = frozenset(
    {
        "_AUTHENTICATION",
        "CLUSTER_AUTHORIZATION_FAILED",
        "GROUP_AUTHORIZATION_FAILED",
        "TOPIC_AUTHORIZATION_FAILED",
    }
)

_REBALANCING: Final = frozenset(
    {"ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS", "UNKNOWN_MEMBER_ID"}
)
"""The group is moving on: the next poll says which partitions are still ours."""

_orphans: list[object] = []
"""Consumers of a parent process: to destroy one in the child would wait for threads that are not
there."""


@dataclass(frozen=True, slots=True)
class _Options:
    dead_letter_topic: str = ""
    """Empty: ``<group>.dead``."""


@dataclass(frozen=True, eq=False, slots=True)
class _Tag:
    partition: Partition
    message: Message

    @property
    def offset(self) -> int:
        return known(self.message.offset())


class KafkaConsumer(Consumer):
    """Consumes one Kafka topic for each topic, in the consumer group of the same name.

    Option of ours: ``dead_letter_topic`` (``<group>.dead``). Every other key is librdkafka's, such
    as ``bootstrap.servers``, which may also be given as the URL ``kafka://host:port,host:port``;
    ``group.id`` and ``enable.auto.commit`` are fixed.
    """

    # Joining a group takes Kafka some seconds, in which nothing comes.
    silence: ClassVar[float] = 10.0

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
        """Raises `InvalidBroker` for the options that we can judge."""
        super().__init__(alias, url, options, group=group, topics=topics, prefetch=prefetch)
        require_client(alias, "confluent_kafka", extra="kafka")
        self._config = configure(alias, url, options, group)
        own = {key: value for key, value in options.items() if key in OWN}
        topic = read_options(alias, own, _Options).dead_letter_topic or f"{group}.dead"
        self._dead_letters = DeadLetters(topic, self._config)
        self._consumer: Any = None
        self._partitions: dict[tuple[str, int], Partition] = {}
        self._fetched: deque[Delivery] = deque()
        self._served_at = 0.0
        self._failure: Exception | None = None
        self._trouble = ""
        self._said: set[str] = set()

    def open(self) -> None:
        """Subscribe once a broker has answered, 5 s at most."""
        self._check_process()
        if self._consumer is not None:
            return
        from confluent_kafka import Consumer as Client
        from confluent_kafka import KafkaException

        try:
            self._consumer = Client({**self._config, "error_cb": self._on_error, "logger": log})
        except (KafkaException, TypeError, ValueError) as error:
            message = f"INBOX['BROKERS'][{self.alias!r}]['OPTIONS']: {text_of(error)}"
            raise InvalidBroker(message) from error
        with self._translated():
            self._find_a_broker()
            self._consumer.subscribe(
                list(self.topics),
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )

    def close(self) -> None:
        """Commit what is done and leave the group."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None and self._pid != os.getpid():
            _orphans.append((consumer, self._dead_letters))
        elif consumer is not None:
            with contextlib.suppress(Exception):
                # With no broker to answer it, a commit would wait for one.
                if self._failure is None:
                    self._commit(consumer)
            with contextlib.suppress(Exception):
                consumer.close()
        self._dead_letters.close()
        self._failure = None
        self._partitions.clear()
        self._fetched.clear()
        self._trouble = ""

    def poll(self, timeout: float) -> list[Delivery]:
        """At most one, so that nothing behind a delivery that is given back has run already."""
        self._check_open()
        with self._translated():
            if not self._fetched:
                self._fetch(timeout)
            elif time.monotonic() - self._served_at >= _ROUND:
                self._fetch(0)
            return [self._fetched.popleft()] if self._fetched else []

    def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """ACK is committed before more is fetched; RETRY seeks back to the delivery's offset."""
        self._check_open()
        tag = delivery.tag
        # A partition that was taken from us meanwhile is its next owner's business (F12).
        if not isinstance(tag, _Tag) or tag.partition not in self._partitions.values():
            return
        with self._translated():
            if disposition is Disposition.RETRY:
                self._seek_back(tag)
                return
            if disposition is Disposition.DEAD:
                self._dead_letters.send(tag.message)
            tag.partition.finish(tag.offset)

    def _fetch(self, timeout: float) -> None:
        self._commit(self._consumer)
        room = self.prefetch - sum(len(p.pending) for p in self._partitions.values())
        if room <= 0:
            return
        first = self._consumer.poll(timeout)
        # consume() would wait until it has as many as it was asked for.
        rest = self._consumer.consume(room - 1, 0) if first is not None and room > 1 else []
        self._served_at = time.monotonic()
        for message in [first, *rest]:
            if message is not None:
                self._take(message)
        if self._failure is not None:
            raise self._failure

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            self._on_error(error)
            # Such as a topic that does not exist yet.
            if error.str() not in self._said:
                self._said.add(error.str())
                log.warning("group %s: %s", self.group, error.str())
            return
        place = (known(message.topic()), known(message.partition()))
        partition = self._partitions.get(place)
        if partition is None:
            return
        tag = _Tag(partition, message)
        body, repeat = message.value() or b"", partition.fetch(tag.offset)
        self._fetched.append(Delivery(self.group, text_headers(message), body, repeat, tag))

    def _commit(self, consumer: Any) -> None:
        """Commit the done prefix of each partition where it moved, and wait for the answer."""
        from confluent_kafka import KafkaException, TopicPartition

        moved = [p for p in self._partitions.values() if p.commit is not None]
        if moved:
            places = [TopicPartition(p.topic, p.number, known(p.commit)) for p in moved]
            try:
                consumer.commit(offsets=places, asynchronous=False)
            except KafkaException as error:
                if error.args[0].name() not in _REBALANCING:
                    raise
            else:
                for partition in moved:
                    partition.commit = None

    def _seek_back(self, tag: _Tag) -> None:
        from confluent_kafka import TopicPartition

        partition, offset = tag.partition, tag.offset
        partition.rewind(offset)
        self._fetched = deque(
            later
            for later in self._fetched
            if not (isinstance(later.tag, _Tag) and later.tag.partition is partition)
        )
        self._consumer.seek(TopicPartition(partition.topic, partition.number, offset))

    def _on_assign(self, _consumer: Any, places: list[TopicPartition]) -> None:
        for place in places:
            key = place.topic, place.partition
            self._partitions[key] = Partition(*key, repeats=self.prefetch)

    def _on_revoke(self, consumer: Any, places: list[TopicPartition]) -> None:
        # What cannot be committed any more comes again, at the next owner.
        with contextlib.suppress(Exception):
            if self._failure is None:
                self._commit(consumer)
        self._on_lost(consumer, places)

    def _on_lost(self, _consumer: Any, places: list[TopicPartition]) -> None:
        gone = {self._partitions.pop((p.topic, p.partition), None) for p in places}
        self._fetched = deque(
            d for d in self._fetched if isinstance(d.tag, _Tag) and d.tag.partition not in gone
        )

    def _on_error(self, error: KafkaError) -> None:
        name = error.name()
        text = f"Broker {self.alias!r}: {name}: {error.str()}"
        if name in _REFUSED:
            self._failure = InvalidBroker(text)
        elif name == "_ALL_BROKERS_DOWN" or error.fatal():
            self._failure = self._failure or ConsumerUnavailable(f"{text} {self._trouble}".strip())
        else:
            # librdkafka goes on by itself: one broker of several is down, for example.
            self._trouble = error.str()

    def _find_a_broker(self) -> None:
        from confluent_kafka import KafkaException

        deadline = time.monotonic() + _CONNECT_TIMEOUT
        while True:
            try:
                self._consumer.list_topics(timeout=_LOOK)
            except KafkaException:
                if isinstance(self._failure, InvalidBroker) or time.monotonic() > deadline:
                    raise
            else:
                # A broker that is down beside one that is up.
                self._failure = None
                return

    def _check_open(self) -> None:
        self._check_process()
        if self._consumer is None:
            message = f"The consumer of broker {self.alias!r} is not connected."
            raise ConsumerUnavailable(message)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise our errors only, and leave the group with any: what is open is delivered again."""
        from confluent_kafka import KafkaException

        try:
            yield
        except (ConsumerUnavailable, InvalidBroker):
            self.close()
            raise
        except (KafkaException, RuntimeError, BufferError) as error:
            failure = self._failure
            text = f"Broker {self.alias!r}: {text_of(error)} {self._trouble}".strip()
            self.close()
            raise failure or ConsumerUnavailable(text) from error
