"""Names of the headers that carry a message's attributes.

CloudEvents 1.0 fixes the attribute names. Each transport has a prefix of its own: ``ce_`` in the
Kafka binding, ``ce-`` in ours for AMQP 0-9-1 (RabbitMQ), for which the specification has none.
"""

from __future__ import annotations

from typing import Final

SPECVERSION: Final = "specversion"
"""Version of CloudEvents that the attributes follow; always ``1.0``."""

ID: Final = "id"
"""The message id: a UUID in its canonical text form."""

SOURCE: Final = "source"
"""The producer: ``OUTBOX["SOURCE"]``, a URI reference."""

TYPE: Final = "type"
"""The topic."""

TIME: Final = "time"
"""When the producer made the message: RFC 3339, UTC, from the producer's clock (metadata only)."""

KEY: Final = "partitionkey"
"""The partition key; absent when the message has none."""

CONTENT_TYPE: Final = "content-type"
"""Media type of the body. It has no prefix: the Kafka binding and AMQP name it so."""

KAFKA_PREFIX: Final = "ce_"
RABBITMQ_PREFIX: Final = "ce-"
PREFIXES: Final = (KAFKA_PREFIX, RABBITMQ_PREFIX, "cloudEvents_", "cloudEvents:")
"""What a consumer accepts. The last two are the AMQP 1.0 binding's, as RabbitMQ 4 converts them."""
