"""The project of the benchmarks: the product's defaults, on the servers of the environment."""

from __future__ import annotations

import os

import dj_database_url

from settings.base import *

INSTALLED_APPS = ["outbox", "inbox", "benchmarks"]

# Made, migrated and dropped by each run: `benchmarks.servers.database`.
DATABASES = {}
if url := os.environ.get("DATABASE_URL"):
    DATABASES["default"] = {
        **dj_database_url.parse(url),
        "TEST": {"NAME": f"benchmarks_{os.getpid()}"},
    }

RABBITMQ_URL = os.environ.get("RABBITMQ_URL", "")
KAFKA_BOOTSTRAP_SERVERS = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")

# Of this process, as the server may be somebody's.
EXCHANGE = f"benchmarks.{os.getpid()}"

OUTBOX = {
    "SOURCE": "/benchmarks",
    "BROKERS": {
        "default": {"BACKEND": "outbox.brokers.memory.MemoryPublisher"},
        "rabbitmq": {
            "BACKEND": "outbox.brokers.rabbitmq.RabbitMQPublisher",
            "URL": RABBITMQ_URL,
            "OPTIONS": {"exchange": EXCHANGE},
        },
        "kafka": {
            "BACKEND": "outbox.brokers.kafka.KafkaPublisher",
            "OPTIONS": {"bootstrap.servers": KAFKA_BOOTSTRAP_SERVERS},
        },
    },
    "ROUTES": [("rabbitmq.*", "rabbitmq"), ("kafka.*", "kafka"), ("*", "default")],
}
INBOX = {
    "BROKERS": {
        "default": {
            "BACKEND": "inbox.brokers.rabbitmq.RabbitMQConsumer",
            "URL": RABBITMQ_URL,
            # The benchmark makes the queue, and removes it.
            "OPTIONS": {"exchange": EXCHANGE, "declare": False},
        }
    }
}

LOGGING = {**LOGGING, "root": {"handlers": ["stderr"], "level": "WARNING"}}
