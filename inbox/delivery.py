"""One arrival of a message at a group, and what becomes of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from outbox.wire import Message, from_headers, headers, to_headers


class Disposition(enum.Enum):
    """What the broker is told about a delivery."""

    ACK = "ack"
    """It is in our tables: processed, duplicate, parked, dead or quarantined."""
    RETRY = "retry"
    """We could not record it: the broker keeps it and brings it again."""
    DEAD = "dead"
    """Our tables refuse it: the broker's own dead letter queue keeps it."""


class Result(enum.StrEnum):
    """What happened to a delivery or to a stored retry: the label of reports and metrics."""

    PROCESSED = "processed"
    """The handler's writes are committed."""
    DUPLICATE = "duplicate"
    """The group has the message already; nothing ran."""
    PARKED = "parked"
    """The handler failed; it runs again when its time has come."""
    DEAD = "dead"
    """Given up; waits for a person."""
    QUARANTINED = "quarantined"
    """The id is known with other content; kept as evidence, never run."""
    UNREADABLE = "unreadable"
    """No message of ours; kept as evidence, never run."""
    UNRECORDED = "unrecorded"
    """The database took nothing: the broker keeps the delivery."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer of the processor; ``error`` is what the handler or the database raised."""

    disposition: Disposition
    result: Result
    error: Exception | None = None


@dataclass(frozen=True, eq=False)
class Delivery:
    """A message as the transport brought it to one group.

    ``redelivered`` says that it may be a repeat, so that its attempt must be counted before the
    handler runs. ``tag`` is the driver's own handle. Compared by identity: two deliveries of one
    message are two.
    """

    group: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    redelivered: bool = False
    tag: object = None

    @classmethod
    def of(cls, message: Message, group: str, *, redelivered: bool = False) -> Delivery:
        """A delivery of this message, for tests and scripts, with the headers of RabbitMQ."""
        fields = to_headers(message, headers.RABBITMQ_PREFIX)
        return cls(group, fields, message.body, redelivered=redelivered)

    @cached_property
    def message(self) -> Message:
        """The message, decoded on first use; its body is not looked at. Raises `DecodeError`."""
        return from_headers(self.headers, self.body)
