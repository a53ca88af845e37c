"""The Kafka topic of what our tables refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from inbox.exceptions import ConsumerUnavailable
from outbox.runtime.kafka_topics import connection_settings

if TYPE_CHECKING:
    from confluent_kafka import Message, Producer

_CONFIRM_TIMEOUT: Final = 10.0
"""Seconds in which the broker must confirm a dead letter."""


class DeadLetters:
    """A producer that is made when the first letter comes."""

    def __init__(self, topic: str, config: Mapping[str, object]) -> None:
        """Keep the topic and what of the consumer's settings says how to connect."""
        self.topic = topic
        self._config = connection_settings(config)
        self._producer: Producer | None = None

    def send(self, message: Message) -> None:
        """Send it as it came and wait for the confirm, else raise `ConsumerUnavailable`."""
        from confluent_kafka import Producer

        if self._producer is None:
            patience = int(_CONFIRM_TIMEOUT * 1000)
            own = {"acks": "all", "message.timeout.ms": patience}
            self._producer = Producer({**self._config, **own})
        # The texts at once: comparing a KafkaError with None breaks the interpreter's rules.
        answers: list[str] = []
        self._producer.produce(
            self.topic,
            message.value(),
            message.key(),
            headers=message.headers() or [],
            on_delivery=lambda error, _: answers.append("" if error is None else error.str()),
        )
        self._producer.flush(_CONFIRM_TIMEOUT + 1)
        if answers != [""]:
            text = f"Topic {self.topic!r} did not take a dead letter: {answers or 'no answer'}."
            raise ConsumerUnavailable(text)

    def close(self) -> None:
        """Let the producer go; nothing is in flight."""
        self._producer = None
