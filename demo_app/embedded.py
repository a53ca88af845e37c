"""Development in one process: relay and consumers as a thread, beside the memory broker."""

from __future__ import annotations

import io
import logging
import threading
import time
from typing import Final

from django.conf import settings
from django.core.management import call_command

from outbox.tasks import drain

log = logging.getLogger("demo_app")

_PAUSE: Final = 0.1
"""Seconds between two looks at the outbox."""
_LOOK_AGAIN: Final = 1.0
"""Seconds after which the inbox is asked for retries that are due."""

_thread: threading.Thread | None = None


def wanted() -> bool:
    """Whether the broker lives in this process, so that no worker elsewhere can help."""
    return settings.OUTBOX["BROKERS"]["default"]["BACKEND"].endswith(".MemoryPublisher")


def running() -> bool:
    """Whether this process relays and consumes."""
    return _thread is not None and _thread.is_alive()


def start() -> None:
    """Relay and consume until the main thread ends."""
    global _thread  # noqa: PLW0603 - one a process, as the broker
    _thread = threading.Thread(target=_work, name="relay-and-consumers")
    _thread.start()


def _work() -> None:
    look_at = 0.0
    # Bounded rounds, not commands that run for ever: each gives its lane back, so that the server
    # may end, or reload its code, at any time.
    while threading.main_thread().is_alive():
        try:
            published = any(report["published"] for report in drain(seconds=1).values())
            if published or time.monotonic() >= look_at:
                call_command("inbox_consume", drain=True, stdout=io.StringIO())
                look_at = time.monotonic() + _LOOK_AGAIN
        except Exception:
            if threading.main_thread().is_alive():
                log.exception("The relay and consumers of this web server pause for a moment")
                time.sleep(_LOOK_AGAIN)
        time.sleep(_PAUSE)
