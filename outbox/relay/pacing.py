"""When to look again: after idling, after an outage."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from outbox.runtime.backoff import Backoff

logger = logging.getLogger("outbox.relay")


class Pacing:
    """Idle waits that double up to a bound; outage pauses that grow with jitter.

    Writes one log line when an outage begins and one when it ends, however long it lasts.
    """

    def __init__(self, name: str, poll: tuple[timedelta, timedelta]) -> None:
        """``name`` goes into the log lines; ``poll`` is (shortest, longest) idle wait."""
        self._name = name
        self._shortest, self._longest = (bound.total_seconds() for bound in poll)
        self._idle = self._shortest
        self._outages = 0
        self._paused_until = 0.0
        self._backoff = Backoff(base=timedelta(seconds=1), max=timedelta(seconds=10))

    def paused(self) -> float:
        """Seconds for which nothing should be tried; 0 or less when there is no pause."""
        return self._paused_until - time.monotonic()

    def worked(self) -> None:
        """Note that a drain met no outage."""
        if self._outages:
            logger.info("%s: working again.", self._name)
            self._outages = 0

    def idle(self, *, something: bool) -> float:
        """Seconds to wait before the next look, after one that found something or nothing."""
        if something:
            self._idle = self._shortest
            return 0.0
        wait, self._idle = self._idle, min(self._idle * 2, self._longest)
        return wait

    def failed(self, error: Exception) -> None:
        """Note that a drain met an outage: pause."""
        if not self._outages:
            logger.warning(
                "%s: unavailable, will go on when it is back. Nothing is lost. %s: %s",
                self._name,
                type(error).__name__,
                error,
            )
        self._outages += 1
        pause = self._backoff.delay(self._outages).total_seconds()
        self._paused_until = time.monotonic() + pause
