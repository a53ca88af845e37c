"""``make demo``: SQLite, a Celery worker on the filesystem transport, an embedded broker.

`outbox_demo` starts the processes and gives them the broker's address in DEMO_BROKER_URL.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from settings.base import *
from settings.base import BASE_DIR, sqlite

DEMO_DIR = Path(os.environ.get("DEMO_DIR", BASE_DIR / ".demo"))
DATABASES = {"default": sqlite(DEMO_DIR / "demo.sqlite3")}

_url = os.environ.get("DEMO_BROKER_URL", "kafka://127.0.0.1:9092")
_driver = (
    ("rabbitmq.RabbitMQPublisher", "rabbitmq.RabbitMQConsumer")
    if _url.startswith("amqp")
    else ("kafka.KafkaPublisher", "kafka.KafkaConsumer")
)

# What the shop's page says; a mock cluster is never called Kafka.
DEMO_BROKER = os.environ.get("DEMO_BROKER_NAME", _url.partition("://")[0])

OUTBOX = {
    "SOURCE": "/shop",
    "BROKERS": {"default": {"BACKEND": f"outbox.brokers.{_driver[0]}", "URL": _url}},
    "WAKEUP": "celery",
    # Shorter than the defaults, so that the recovery of a killed relay can be watched.
    "LEASE": timedelta(seconds=4),
    "CONFIRM_TIMEOUT": timedelta(seconds=2),
}
INBOX = {"BROKERS": {"default": {"BACKEND": f"inbox.brokers.{_driver[1]}", "URL": _url}}}

# Celery without a server: messages are files.
CELERY_BROKER_URL = "filesystem://localhost"
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "data_folder_in": str(DEMO_DIR / "celery"),
    "data_folder_out": str(DEMO_DIR / "celery"),
    "control_folder": str(DEMO_DIR / "celery-control"),
}
