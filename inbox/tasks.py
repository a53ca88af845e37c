"""Celery's chores for the inbox. Needs the extra ``celery``.

Imports models inside its functions only, so that a project's Celery app can import BEAT_SCHEDULE
before Django has loaded its apps.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Any, Final

from celery import shared_task

_INTERVAL: Final = 5.0

BEAT_SCHEDULE: Final[dict[str, Any]] = {
    "inbox-run-due": {
        "task": "inbox.tasks.run_due",
        "schedule": _INTERVAL,
        # As in outbox.tasks: the broker drops a run that has a successor, by one clock.
        "options": {"expiration": _INTERVAL, "ignore_result": True},
    },
}
"""To merge into ``beat_schedule``. Any number of beats may run: a retry is claimed by one run."""


@shared_task(name="inbox.tasks.run_due", ignore_result=True)
def run_due(group: str | None = None, seconds: float = 20.0) -> dict[str, dict[str, int]]:
    """Run the stored retries that are due, of the groups of `inbox_task`, or of this group.

    `inbox_consume` runs those of its own groups; name a group here that neither of them feeds, but
    your own calls of `inbox.process`. Starts no retry after ``seconds``. Returns how often each
    result came, by group. Raises `HandlerNotFound` for a group without handlers: its retries would
    be made dead.
    """
    from inbox import registry
    from inbox.celery import processor
    from inbox.delivery import Result
    from inbox.exceptions import HandlerNotFound

    groups = registry.groups(by_celery=True) if group is None else [group]
    if group is not None and group not in registry.groups():
        message = f"Group {group!r} has no handler in this worker: import the module that has it."
        raise HandlerNotFound(message)
    counts: dict[str, Counter[str]] = {name: Counter() for name in groups}
    waiting = deque(groups)
    deadline = time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        name = waiting.popleft()
        for outcome in processor().run_due(name, limit=1):
            counts[name][outcome.result.value] += 1
            if outcome.result is not Result.UNRECORDED:
                waiting.append(name)
    return {name: dict(count) for name, count in counts.items()}
