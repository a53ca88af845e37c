"""The demonstration project on real servers, with leases short enough to wait for."""

from __future__ import annotations

import os
from datetime import timedelta

from settings.services import *
from settings.services import INBOX, OUTBOX

OUTBOX |= {
    "LEASE": timedelta(seconds=3),
    "CONFIRM_TIMEOUT": timedelta(seconds=1.5),
    "BATCH_SIZE": int(os.environ.get("BATCH_SIZE", "500")),
    "MAX_ATTEMPTS": int(os.environ.get("MAX_ATTEMPTS", "20")),
    "BACKOFF": {"BASE": timedelta(seconds=0.2), "MAX": timedelta(seconds=1)},
}
INBOX |= {"BACKOFF": {"BASE": timedelta(seconds=0.2), "MAX": timedelta(seconds=1)}}

# Celery's own broker is a folder, so that a test may take the messages' broker away.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "data_folder_in": os.environ["CELERY_FOLDER"],
    "data_folder_out": os.environ["CELERY_FOLDER"],
    "control_folder": os.environ["CELERY_FOLDER"] + "-control",
}

if "QUEUE_TYPE" in os.environ:
    INBOX["BROKERS"]["default"]["OPTIONS"] = {"queue_type": os.environ["QUEUE_TYPE"]}

if os.environ.get("BROKER") == "kafka":
    # A killed consumer's partitions pass on after this time; librdkafka's default is 45 s.
    INBOX["BROKERS"]["default"]["OPTIONS"] |= {"session.timeout.ms": 6000}
