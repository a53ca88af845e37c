"""Consumer for Kafka, over confluent-kafka (librdkafka): offsets of the contiguous done prefix."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from inbox.brokers.base import Consumer
from inbox.brokers.kafka_dead_letters import DeadLetters
from inbox.brokers.kafka_session import Session, Tag
from inbox.brokers.librdkafka import OWN, configure, text_of
from inbox.delivery import Delivery, Disposition
from inbox.exceptions import ConsumerUnavailable, InvalidBroker
from outbox.runtime import kafka_topics
from outbox.runtime.drivers import read_options, require_client
from outbox.runtime.topology import Shape, TopologyObject

log = logging.getLogger("inbox")

_CONNECT_TIMEOUT: Final = 5.0
"""Seconds in which `KafkaConsumer.open` must have seen a broker."""

_ROUND: Final = 1.0
"""Seconds after which the client is served although fetched messages are waiting: for the group
(max.poll.interval.ms), and so that what is done is committed."""

_orphans: list[object] = []
"""Sessions of a parent process: to destroy one in the child would wait for threads that are not
there."""


@dataclass(frozen=True, slots=True)
class _Options:
    dead_letter_topic: str = ""
    """Empty: ``<group>.dead``."""


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
        require_client(self.path, "confluent_kafka", extra="kafka")
        self._config = configure(self.path, url, options, group)
        own = {key: value for key, value in options.items() if key in OWN}
        topic = read_options(f"{self.path}['OPTIONS']", own, _Options).dead_letter_topic
        self._dead_letters = DeadLetters(topic or f"{group}.dead", self._config)
        self._session: Session | None = None

    def open(self) -> None:
        """Subscribe once a broker has answered, 5 s at most.

        A topic that is missing is said and waited for: it is found within seconds of its creation.
        """
        self._check_process()
        if self._session is None:
            with self._reaching() as (session, known):
                if absent := [name for name in self._needed() if name not in known]:
                    log.error(
                        "group %s: broker %r has no topic %s, and waits for it. Create what is "
                        "missing: inbox_topology --declare --group %s",
                        self.group,
                        self.alias,
                        ", ".join(absent),
                        self.group,
                    )
                session.subscribe(list(self.topics))

    def topology(self, shape: Shape, *, declare: bool) -> list[TopologyObject]:
        """The topics of the group and the one of its dead letters."""
        self._check_process()
        self.close()
        from confluent_kafka import admin

        with self._reaching() as (_session, known):
            objects = kafka_topics.look(known, self._needed(), shape)
            if declare:
                objects = kafka_topics.create(admin, self._config, objects, shape)
        self.close()
        return objects

    def _needed(self) -> list[str]:
        return [*self.topics, self._dead_letters.topic]

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[tuple[Session, Mapping[str, Any]]]:
        """A session whose broker has answered, and the topics that there are."""
        from confluent_kafka import KafkaException

        try:
            self._session = session = Session(self.alias, self.group, self.prefetch, self._config)
        except (KafkaException, TypeError, ValueError) as error:
            message = f"{self.path}['OPTIONS']: {text_of(error)}"
            raise InvalidBroker(message) from error
        with self._translated(session):
            known = session.reach(_CONNECT_TIMEOUT)
            yield session, known

    def close(self) -> None:
        """Commit what is done and leave the group."""
        session, self._session = self._session, None
        if session is not None and self._pid != os.getpid():
            _orphans.append((session, self._dead_letters))
        elif session is not None:
            session.leave()
            self._dead_letters.close()

    def poll(self, timeout: float) -> list[Delivery]:
        """At most one, so that nothing behind a delivery that is given back has run already."""
        session = self._opened()
        with self._translated(session):
            if not session.fetched:
                session.fetch(timeout)
            elif session.idle_for() >= _ROUND:
                session.fetch(0)
            return [session.fetched.popleft()] if session.fetched else []

    def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """ACK is committed before more is fetched; RETRY seeks back to the delivery's offset."""
        session, tag = self._opened(), delivery.tag
        # A partition that was taken from us meanwhile is its next owner's business (F12).
        if not isinstance(tag, Tag) or not session.owns(tag.partition):
            return
        with self._translated(session):
            if disposition is Disposition.RETRY:
                session.seek_back(tag)
                return
            if disposition is Disposition.DEAD:
                self._dead_letters.send(tag.message)
            tag.partition.finish(tag.offset)

    def _opened(self) -> Session:
        self._check_process()
        if self._session is None:
            message = f"The consumer of broker {self.alias!r} is not connected."
            raise ConsumerUnavailable(message)
        return self._session

    @contextlib.contextmanager
    def _translated(self, session: Session) -> Iterator[None]:
        """Raise our errors only, and leave the group with any: what is open is delivered again."""
        from confluent_kafka import KafkaException

        try:
            yield
        except (ConsumerUnavailable, InvalidBroker):
            self.close()
            raise
        except (KafkaException, RuntimeError, BufferError) as error:
            text = f"Broker {self.alias!r}: {text_of(error)} {session.trouble}".strip()
            failure = session.failure or ConsumerUnavailable(text)
            self.close()
            raise failure from error
