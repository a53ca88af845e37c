"""One membership in a Kafka consumer group, from subscribing to leaving."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from inbox.brokers.librdkafka import known, text_headers
from inbox.brokers.offsets import Partition
from inbox.delivery import Delivery
from inbox.exceptions import ConsumerUnavailable, InvalidBroker

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, TopicPartition

log = logging.getLogger("inbox")

_LOOK: Final = 0.5
"""Seconds of one look for a broker; between looks the errors of the client are read."""

_ANSWER: Final = 5.0
"""Seconds for a commit and for leaving. librdkafka's own calls wait for a coordinator that went
away for twice the session's timeout, which is a minute and a half by default."""

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


@dataclass(frozen=True, eq=False, slots=True)
class Tag:
    """Where a delivery came from."""

    partition: Partition
    message: Message

    @property
    def offset(self) -> int:
        """The message's place in its partition."""
        return known(self.message.offset())


class Session:
    """A librdkafka consumer with what it has fetched and not committed.

    Its callbacks come while it is polled and while it leaves, perhaps after a new session has
    begun: so they touch nothing but the session.
    """

    def __init__(self, alias: str, group: str, prefetch: int, config: Mapping[str, object]) -> None:
        """Make the client, which connects in the background. Raises what librdkafka refuses."""
        from confluent_kafka import Consumer

        self.failure: ConsumerUnavailable | InvalidBroker | None = None
        self.trouble = ""
        self.fetched: deque[Delivery] = deque()
        self._alias, self._group, self._prefetch = alias, group, prefetch
        self._partitions: dict[tuple[str, int], Partition] = {}
        self._said: set[str] = set()
        self._served_at = 0.0
        self._pending: threading.Thread | None = None
        self._client: Any = Consumer({**config, "error_cb": self._on_error, "logger": log})

    def reach(self, patience: float) -> Mapping[str, Any]:
        """Wait until a broker has answered; the topics that there are."""
        from confluent_kafka import KafkaException

        deadline = time.monotonic() + patience
        while True:
            try:
                topics: Mapping[str, Any] = self._client.list_topics(timeout=_LOOK).topics
                break
            except KafkaException:
                if isinstance(self.failure, InvalidBroker) or time.monotonic() > deadline:
                    raise
        # There may be one that is down beside one that is up.
        self.failure = None
        return topics

    def subscribe(self, topics: list[str]) -> None:
        """Join the group."""
        self._client.subscribe(
            topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def fetch(self, timeout: float) -> None:
        """Commit what is done, then fetch what has come, waiting for the first."""
        self._commit()
        room = self._prefetch - sum(len(p.pending) for p in self._partitions.values())
        if room <= 0:
            return
        first = self._client.poll(timeout)
        # consume() would wait until it has as many as it was asked for.
        rest = self._client.consume(room - 1, 0) if first is not None and room > 1 else []
        self._served_at = time.monotonic()
        for message in [first, *rest]:
            if message is not None:
                self._take(message)
        if self.failure is not None:
            raise self.failure

    def idle_for(self) -> float:
        """Seconds since the client was served: each time tells the group that we live."""
        return time.monotonic() - self._served_at

    def owns(self, partition: Partition) -> bool:
        """Whether this assignment of the partition is still ours."""
        return self._partitions.get((partition.topic, partition.number)) is partition

    def seek_back(self, tag: Tag) -> None:
        """Fetch a delivery again, and with it all that were fetched behind it."""
        from confluent_kafka import TopicPartition

        tag.partition.rewind(tag.offset)
        self._forget({tag.partition})
        place = TopicPartition(tag.partition.topic, tag.partition.number, tag.offset)
        self._client.seek(place)

    def leave(self) -> None:
        """Commit what is done and leave the group, in the background if it takes too long."""
        # With no broker to answer it, a commit would wait for one.
        if self.failure is None and self._pending is None:
            with contextlib.suppress(Exception):
                self._commit()
        before = self._pending

        def close() -> None:
            # A client must not be closed under a call of another thread.
            if before is not None:
                before.join()
            with contextlib.suppress(Exception):
                self._client.close()

        _in_background(close).join(_ANSWER)

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            self._on_error(error)
            # Such as a topic that does not exist yet.
            if error.str() not in self._said:
                self._said.add(error.str())
                log.warning("group %s: %s", self._group, error.str())
            return
        place = (known(message.topic()), known(message.partition()))
        partition = self._partitions.get(place)
        if partition is None:
            return
        tag = Tag(partition, message)
        body, repeat = message.value() or b"", partition.fetch(tag.offset)
        self.fetched.append(Delivery(self._group, text_headers(message), body, repeat, tag))

    def _commit(self) -> None:
        """Commit the done prefix of each partition where it moved, and wait for the answer."""
        from confluent_kafka import KafkaException, TopicPartition

        moved = [p for p in self._partitions.values() if p.commit is not None]
        if not moved:
            return
        places = [TopicPartition(p.topic, p.number, known(p.commit)) for p in moved]
        answers: list[Exception | None] = []

        def commit() -> None:
            try:
                self._client.commit(offsets=places, asynchronous=False)
            except Exception as error:  # noqa: BLE001 - it is raised again by the waiting thread
                answers.append(error)
            else:
                answers.append(None)

        self._pending = _in_background(commit)
        self._pending.join(_ANSWER)
        if not answers:
            message = f"Broker {self._alias!r} does not answer a commit."
            raise ConsumerUnavailable(message)
        self._pending, error = None, answers[0]
        if error is None:
            for partition in moved:
                partition.commit = None
        elif not (isinstance(error, KafkaException) and error.args[0].name() in _REBALANCING):
            raise error

    def _forget(self, partitions: set[Partition]) -> None:
        self.fetched = deque(
            delivery
            for delivery in self.fetched
            if isinstance(delivery.tag, Tag) and delivery.tag.partition not in partitions
        )

    def _on_assign(self, _client: Any, places: list[TopicPartition]) -> None:
        for place in places:
            key = place.topic, place.partition
            self._partitions[key] = Partition(*key, repeats=self._prefetch)

    def _on_revoke(self, client: Any, places: list[TopicPartition]) -> None:
        # What cannot be committed any more comes again, at the next owner.
        with contextlib.suppress(Exception):
            if self.failure is None and self._pending is None:
                self._commit()
        self._on_lost(client, places)

    def _on_lost(self, _client: Any, places: list[TopicPartition]) -> None:
        gone = (self._partitions.pop((p.topic, p.partition), None) for p in places)
        self._forget({partition for partition in gone if partition is not None})

    def _on_error(self, error: KafkaError) -> None:
        name = error.name()
        text = f"Broker {self._alias!r}: {name}: {error.str()}"
        if name in _REFUSED:
            self.failure = InvalidBroker(text)
        elif name == "_ALL_BROKERS_DOWN" or error.fatal():
            self.failure = self.failure or ConsumerUnavailable(f"{text} {self.trouble}".strip())
        else:
            # librdkafka goes on by itself: one broker of several is down, for example.
            self.trouble = error.str()


def _in_background(action: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread
