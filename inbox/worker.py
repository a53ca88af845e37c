"""The loop of one group: poll, process, settle; and the stored retries that are due."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Final, Literal

from inbox import registry, trouble
from inbox.brokers import make_consumer
from inbox.brokers.base import Consumer
from inbox.conf import InboxSettings, get_settings
from inbox.delivery import Disposition, Outcome, Result
from inbox.exceptions import ConsumerUnavailable, HandlerNotFound, InboxError
from inbox.processing import Processor
from outbox.runtime.backoff import Backoff

log = logging.getLogger("inbox")

Mode = Literal["forever", "drain", "once"]

_ROUND: Final = 1.0
"""Seconds: the longest wait for a delivery, and how often the chores of a round are done."""
_DUE_AT_ONCE: Final = 10
"""Stored retries between two looks at the broker, so that neither starves the other."""
_PATIENCE: Final = {"once": 1, "drain": 3}
"""Tries in a row that the database may refuse before a bounded run gives up."""
_PAUSE: Final = Backoff(timedelta(seconds=0.2), 2, timedelta(seconds=5))


@dataclass(slots=True)
class WorkerReport:
    """What happened: arrivals, and the results of arrivals and of stored retries."""

    received: int = 0
    processed: int = 0
    duplicate: int = 0
    parked: int = 0
    dead: int = 0
    quarantined: int = 0
    unreadable: int = 0
    unrecorded: int = 0
    seconds: float = 0.0

    def count(self, result: Result) -> None:
        """Count one result."""
        setattr(self, result.value, getattr(self, result.value) + 1)

    def add(self, other: WorkerReport) -> None:
        """Add the figures of another report."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


class _Trouble:
    """Says once that something is away and once that it is back, and paces the tries between."""

    def __init__(self, what: str) -> None:
        self.tries = 0
        self._what = what

    def wait(self, why: object, stop: threading.Event) -> None:
        if self.tries == 0:
            log.warning("%s is unavailable: %s", self._what, why)
        self.tries += 1
        stop.wait(_PAUSE.delay(self.tries).total_seconds())

    def over(self) -> None:
        if self.tries:
            log.warning("%s is available again after %d tries", self._what, self.tries)
        self.tries = 0


class Worker:
    """Consumes for one group, in one thread, until it is told to stop.

    The database or the broker going away does not end it: it waits, longer each time, and says so
    once. A bounded run does end: with `ConsumerUnavailable`, or with `InboxError` when the database
    takes nothing.
    """

    def __init__(
        self,
        group: str,
        *,
        settings: InboxSettings | None = None,
        consumer: Consumer | None = None,
        on_ready: Callable[[], None] = lambda: None,
        on_report: Callable[[WorkerReport], None] = lambda _report: None,
    ) -> None:
        """``on_ready`` is called after the first connection, ``on_report`` once a busy second.

        Raises `HandlerNotFound` for a group without handlers or fed by Celery, `InvalidBroker`.
        """
        settings = settings or get_settings()
        _require_queues(group)
        self.group = group
        self._consumer = consumer or make_consumer(settings, group, registry.topics(group))
        self._processor = Processor(settings)
        self._on_ready, self._on_report = on_ready, on_report
        self.total = WorkerReport()
        self._recent = WorkerReport()
        self._broker = _Trouble(f"group {group}: broker {self._consumer.alias!r}")
        self._database = _Trouble(f"group {group}: the database")
        self._is_open = self._is_database_down = False
        self._refused = 0
        self._chores_at = self._due_at = self._reported_at = 0.0

    def run(
        self,
        stop: threading.Event,
        mode: Mode = "forever",
        max_messages: int | None = None,
    ) -> WorkerReport:
        """Work until ``stop`` is set, or the mode ends it, or after ``max_messages`` arrivals.

        ``"drain"`` ends when nothing has come for a moment and nothing is due, ``"once"`` after
        one round. The running handler is always finished and settled first. Returns the totals.
        """
        self._reported_at = busy_at = time.monotonic()
        try:
            while not (stop.is_set() or self._has_all(max_messages)):
                if self._round(stop, mode, max_messages):
                    busy_at = time.monotonic()
                if mode == "once":
                    break
                if mode == "drain" and time.monotonic() - busy_at >= self._consumer.silence:
                    break
        finally:
            self._close()
            self._report()
        return self.total

    def _round(self, stop: threading.Event, mode: Mode, max_messages: int | None) -> bool:
        """Look once at everything; True if there was something to do."""
        self._do_chores()
        ran = self._run_due(stop)
        try:
            self._open()
            deliveries = self._consumer.poll(0 if ran else min(_ROUND, self._consumer.silence))
            self._broker.over()
            for delivery in deliveries:
                if stop.is_set() or self._has_all(max_messages):
                    break
                self._recent.received += 1
                outcome = self._processor.handle(delivery)
                self._consumer.settle(delivery, outcome.disposition)
                self._count(outcome, stop)
        except ConsumerUnavailable as error:
            self._close()
            if mode != "forever":
                raise
            self._broker.wait(error, stop)
            return True
        if self._refused >= _PATIENCE.get(mode, self._refused + 1):
            message = f"Group {self.group!r}: the database takes nothing, see the log."
            raise InboxError(message)
        return bool(ran or deliveries)

    def _run_due(self, stop: threading.Event) -> int:
        """Run stored retries, and come back at once if there were as many as allowed."""
        if time.monotonic() < self._due_at:
            return 0
        ran = 0
        while ran < _DUE_AT_ONCE and not stop.is_set():
            outcomes = self._processor.run_due(self.group, limit=1)
            if not outcomes:
                self._answered()
                break
            ran += 1
            self._count(outcomes[0], stop)
            if outcomes[0].result is Result.UNRECORDED:
                self._is_database_down = True
                break
        if ran < _DUE_AT_ONCE:
            self._due_at = time.monotonic() + _ROUND
        return ran

    def _answered(self) -> None:
        """The database is back even if there is nothing to record; a handler's deadlock is not."""
        if self._is_database_down:
            self._is_database_down = False
            self._database.over()

    def _count(self, outcome: Outcome, stop: threading.Event) -> None:
        self._recent.count(outcome.result)
        if outcome.result is not Result.UNRECORDED:
            self._refused = 0
            self._database.over()
        elif outcome.disposition is Disposition.RETRY:
            self._refused += 1
            self._database.wait(outcome.error or "another consumer holds the message", stop)

    def _do_chores(self) -> None:
        if time.monotonic() >= self._chores_at:
            trouble.close_old_connections()
            if self._recent != WorkerReport():
                self._report()
            self._chores_at = time.monotonic() + _ROUND

    def _report(self) -> None:
        now = time.monotonic()
        self._recent.seconds = now - self._reported_at
        self._reported_at = now
        if self._recent != WorkerReport(seconds=self._recent.seconds):
            self._on_report(self._recent)
        self.total.add(self._recent)
        self._recent = WorkerReport()

    def _has_all(self, max_messages: int | None) -> bool:
        received = self.total.received + self._recent.received
        return max_messages is not None and received >= max_messages

    def _open(self) -> None:
        if not self._is_open:
            self._consumer.open()
            self._is_open = True
            self._on_ready()

    def _close(self) -> None:
        self._consumer.close()
        self._is_open = False


def _require_queues(group: str) -> None:
    known = registry.groups(by_celery=False)
    if group in registry.groups(by_celery=True):
        message = (
            f"Group {group!r} is fed by Celery: it has tasks and no queue of its own. Run a Celery "
            "worker for it, and inbox.tasks.run_due for its stored retries."
        )
        raise HandlerNotFound(message)
    if group not in known:
        names = ", ".join(known) or "none"
        message = f"Group {group!r} has no handler. Groups with handlers: {names}."
        raise HandlerNotFound(message)
