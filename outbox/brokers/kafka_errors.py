"""What librdkafka's errors mean for a message, and what a person can do about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outbox.brokers.base import Status

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

_UNROUTABLE: Final = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"})

_REFUSED: Final = frozenset(
    {
        "INVALID_RECORD",
        "INVALID_TIMESTAMP",
        "MSG_SIZE_TOO_LARGE",
        "POLICY_VIOLATION",
        "RECORD_LIST_TOO_LARGE",
        "TOPIC_AUTHORIZATION_FAILED",
        "TOPIC_EXCEPTION",
        "UNSUPPORTED_FOR_MESSAGE_FORMAT",
    }
)
"""The broker took nothing. All other errors leave that open: a timed out message may have been
written, and retriable() says nothing of it (F3)."""

HOPELESS: Final = frozenset({"_AUTHENTICATION", "CLUSTER_AUTHORIZATION_FAILED"})

_CURES: Final = {
    "MSG_SIZE_TOO_LARGE": (
        "Raise max.message.bytes of topic {topic!r} and, in OPTIONS, message.max.bytes, or lower "
        "OUTBOX['MAX_BODY']."
    ),
    "TOPIC_AUTHORIZATION_FAILED": (
        "Give this account WRITE and DESCRIBE on topic {topic!r} (kafka-acls.sh)."
    ),
}
_CREATE: Final = (
    "Topic {topic!r} must exist: create it (outbox_topology --declare --topic …), or correct "
    "OUTBOX['ROUTES'] or the topic's name."
)


def verdict(error: KafkaError) -> Status:
    """What it says about the message that it came for."""
    if error.name() in _UNROUTABLE:
        return Status.RETURNED
    return Status.NACKED if error.name() in _REFUSED else Status.UNKNOWN


def reason(error: KafkaError, topic: str = "") -> str:
    """Name, text and, where there is one, the cure; ``topic`` is the one on the broker."""
    name = error.name()
    cure = _CREATE if name in _UNROUTABLE else _CURES.get(name, "")
    return f"{name}: {error.str()}" + (f". {cure.format(topic=topic)}" if topic and cure else "")


def text_of(error: Exception) -> str:
    """The text of a KafkaError rather than its repr."""
    cause = error.args[0] if error.args else error
    return str(cause.str()) if hasattr(cause, "str") else str(error)
