"""The shop with orders on Kafka and cancellations on RabbitMQ."""

from __future__ import annotations

import os

from tests.acceptance.settings import *
from tests.acceptance.settings import INBOX, INSTALLED_APPS, OUTBOX

_kafka = {"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]}
_rabbitmq = {"URL": os.environ["RABBITMQ_URL"], "OPTIONS": {"exchange": "two-brokers"}}

INSTALLED_APPS = [*INSTALLED_APPS, "tests.acceptance.two_brokers"]
OUTBOX |= {
    "BROKERS": {
        "default": {"BACKEND": "outbox.brokers.rabbitmq.RabbitMQPublisher", **_rabbitmq},
        "stream": {"BACKEND": "outbox.brokers.kafka.KafkaPublisher", "OPTIONS": _kafka},
    },
    "ROUTES": [("orders.placed", "stream"), ("*", "default")],
    "WAKEUP": None,
}
INBOX |= {
    "BROKERS": {
        "default": {"BACKEND": "inbox.brokers.rabbitmq.RabbitMQConsumer", **_rabbitmq},
        "stream": {
            "BACKEND": "inbox.brokers.kafka.KafkaConsumer",
            # A killed consumer's partitions pass on after this time.
            "OPTIONS": {**_kafka, "session.timeout.ms": 6000},
        },
    },
    "GROUPS": {group: {"BROKER": "stream"} for group in ("warehouse", "billing", "mail")},
}
