"""After a commit: tell a relay that there is something to do. A hint; losing it costs latency."""

from __future__ import annotations

import functools
import logging
import threading
import time
from typing import Final

from django.db import transaction

from outbox.conf import get_settings

logger = logging.getLogger("outbox.wakeups")

DRAIN_TASK: Final = "outbox.tasks.drain"
DEBOUNCE: Final = 0.02
"""Seconds in which one nudge a process and broker is enough: a drain lingers longer than that."""
SILENCE: Final = 5.0
"""Seconds without a nudge after one failed, so that requests do not wait for a dead broker."""

_lock = threading.Lock()
_quiet_until: dict[tuple[str, str], float] = {}
_failing = False


def after_commit(broker: str, using: str) -> None:
    """Nudge once the caller's transaction has committed, if WAKEUP is on."""
    if get_settings().wakeup == "celery":
        # robust: an error here must not keep the project's own hooks from running.
        transaction.on_commit(functools.partial(_nudge, broker, using), using=using, robust=True)


def _nudge(broker: str, using: str) -> None:
    global _failing  # noqa: PLW0603
    now = time.monotonic()
    with _lock:
        if now < _quiet_until.get((broker, using), 0.0):
            return
        _quiet_until[broker, using] = now + DEBOUNCE
    try:
        _send(broker, using)
    except Exception as error:  # noqa: BLE001 - whatever it is, the message is safe in the table
        with _lock:
            _quiet_until[broker, using] = time.monotonic() + SILENCE
            first, _failing = not _failing, True
        if first:
            logger.warning("Nudging the relay failed; it will poll until this works: %s", error)
    else:
        _failing = False


def _send(broker: str, using: str) -> None:
    from celery import current_app

    with current_app.producer_or_acquire() as producer:
        # Else kombu tries a refused connection for six seconds, and a request waits for it.
        producer.connection.ensure_connection(max_retries=0)
        current_app.send_task(
            DRAIN_TASK,
            kwargs={"broker": broker, "using": using},
            ignore_result=True,
            retry=False,
            # A nudge that waited this long has successors, and beat's drains look anyway.
            expires=SILENCE,
            producer=producer,
        )
