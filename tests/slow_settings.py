"""The test suite's settings with a broker that takes its time (for processes of their own)."""

import os
from datetime import timedelta

from settings.test import *  # noqa: F403 - as in settings/
from settings.test import OUTBOX

OUTBOX |= {
    "BROKERS": {
        "default": {
            "BACKEND": "tests.outbox_support.SlowPublisher",
            # Without it the broker never answers.
            "OPTIONS": {"seconds": float(os.environ["SECONDS"])} if os.environ["SECONDS"] else {},
        }
    },
    "LANES": 1,
    "BATCH_SIZE": 3,
    "POLL": (timedelta(seconds=0.05), timedelta(seconds=0.1)),
}
