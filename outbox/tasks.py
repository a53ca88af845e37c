"""Celery's door to the relay. Needs the extra ``celery``.

Imports models inside its functions only, so that a project's Celery app can import BEAT_SCHEDULE
before Django has loaded its apps.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Final

from celery import shared_task

if TYPE_CHECKING:
    from outbox.relay import Relay

_INTERVAL: Final = 5.0
_LINGER: Final = 0.1
"""Seconds, more than `outbox.wakeups.DEBOUNCE`: a commit whose nudge was saved is seen.

A drain that finds nothing ends at once: who took what it was nudged for is lingering.
"""

BEAT_SCHEDULE: Final[dict[str, Any]] = {
    "outbox-drain": {
        "task": "outbox.tasks.drain",
        "schedule": _INTERVAL,
        # A run that waited longer than the interval has a successor in the queue.
        # The broker drops it; ``expires`` would compare the clocks of two hosts, and where they
        # differ by more than the interval no drain would ever run.
        "options": {"expiration": _INTERVAL, "ignore_result": True},
    },
}
"""To merge into ``beat_schedule``. Any number of beats may run: lanes keep the drains apart."""


class _Relays(threading.local):
    """The relays of a thread, kept from run to run so that connections and log state are."""

    def __init__(self) -> None:
        self._relays: dict[tuple[int, str, str], Relay] = {}

    def get(self, broker: str, using: str) -> Relay:
        from outbox.relay import Relay

        # The process is part of the key: a pool's child must not use its parent's connections.
        target = (os.getpid(), broker, using)
        if target not in self._relays:
            self._relays[target] = Relay(broker, using)
        return self._relays[target]


_relays = _Relays()


@shared_task(name="outbox.tasks.drain", ignore_result=True)
def drain(
    broker: str | None = None, using: str | None = None, seconds: float = 20.0
) -> dict[str, dict[str, int | float | str]]:
    """Drain one broker, or all of them; for at most ``seconds`` each, plus one page.

    Returns each broker's report. An outage of broker or database ends the run early and is
    logged once; the next run tries again.
    """
    from django.db import router

    from outbox.conf import get_settings
    from outbox.models import OutboxMessage

    aliases = [broker] if broker else list(get_settings().brokers)
    database = using or router.db_for_write(OutboxMessage)
    reports = {
        alias: _relays.get(alias, database).drain(seconds=seconds, linger=_LINGER)
        for alias in aliases
    }
    return {alias: report.as_dict() for alias, report in reports.items()}
