"""Real servers, all by environment variables (``make services`` writes them to .services.env)."""

from __future__ import annotations

import os

import dj_database_url

from settings.base import *

DATABASES = {"default": dj_database_url.parse(os.environ["DATABASE_URL"], conn_max_age=60)}

RABBITMQ_URL = os.environ.get("RABBITMQ_URL", "")
_BROKERS = {
    "rabbitmq": (
        {"BACKEND": "outbox.brokers.rabbitmq.RabbitMQPublisher", "URL": RABBITMQ_URL},
        {"BACKEND": "inbox.brokers.rabbitmq.RabbitMQConsumer", "URL": RABBITMQ_URL},
    ),
    "kafka": tuple(
        {
            "BACKEND": backend,
            "OPTIONS": {"bootstrap.servers": os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")},
        }
        for backend in (
            "outbox.brokers.kafka.KafkaPublisher",
            "inbox.brokers.kafka.KafkaConsumer",
        )
    ),
}
_publisher, _consumer = _BROKERS[os.environ.get("BROKER", "rabbitmq")]

OUTBOX = {"SOURCE": "/shop", "BROKERS": {"default": _publisher}, "WAKEUP": "celery"}
INBOX = {"BROKERS": {"default": _consumer}}

CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", RABBITMQ_URL)
