"""The relay: claim, submit, collect, settle. The one place where a row becomes a submission."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from django.db import InterfaceError, OperationalError, connections

from outbox import routes
from outbox.brokers import publishers
from outbox.brokers.base import Publisher
from outbox.conf import MARGIN, get_settings
from outbox.exceptions import BrokerError, BrokerMisconfigured, BrokerUnavailable, LeaseLost
from outbox.relay.pacing import Pacing
from outbox.relay.report import DrainReport
from outbox.relay.window import Window
from outbox.store import Done, Entry, Failed, Lease, stores

logger = logging.getLogger("outbox.relay")

_PAGES_A_VISIT: Final = 10
"""Pages after which a lane is given back, so that a long one does not keep the others waiting."""
_FRESH: Final = 2 / 3
"""Part of a lease that must be left when a page is handed over; else it is renewed first."""
_LOOK_AGAIN: Final = 0.02
"""Seconds between two looks while a drain lingers."""


class Relay:
    """Drains one broker's messages of one database.

    Any number of relays may work at once: a lane belongs to one of them at a time, and each write
    is fenced by that lane's lease. No database transaction is open while the network is used.
    For one thread; `drain` reports an outage of broker or database, and does not raise it.
    """

    def __init__(
        self, broker: str, using: str, publisher: Publisher | None = None, lanes: int | None = None
    ) -> None:
        """``broker`` is an alias of OUTBOX['BROKERS'], ``using`` a database alias.

        ``publisher`` and ``lanes`` replace what the settings say, for tests.
        """
        self.broker = broker
        self.using = using
        self._owner = uuid.uuid4()
        self._settings = get_settings()
        self._lanes = lanes or self._settings.lanes
        self._store = stores[using]
        self._publisher = publisher or publishers[broker]
        self._opened = False
        self._at_once: dict[int, int] = {}
        self._pacing = Pacing(f"Relay of broker {broker!r}", self._settings.poll)

    def run(self, stop: threading.Event, report: DrainReport) -> None:
        """Drain until ``stop`` is set, adding to ``report``.

        A broker or database that goes away never ends it: it pauses, says so once, and goes on.
        """
        while not stop.is_set():
            done = self.drain(stop)
            report.add(done)
            report.outage = done.outage
            if done.outage:
                stop.wait(self._pacing.paused())
            else:
                stop.wait(self._pacing.idle(something=bool(done.claimed)))
        self.close()

    def drain(
        self,
        stop: threading.Event | None = None,
        seconds: float = math.inf,
        linger: float = 0.0,
        *,
        once: bool = False,
    ) -> DrainReport:
        """Hand over what is due until nothing is left for this relay.

        Begins no page after ``seconds``, or when ``stop`` is set. Goes on looking for ``linger``
        seconds after the last message it claimed; with ``once`` it visits each lane once.
        """
        report = DrainReport()
        if self._pacing.paused() > 0:
            report.outage = "paused after an outage"
            return report
        began = quiet_since = time.monotonic()
        stop = stop or threading.Event()

        def enough() -> bool:
            return stop.is_set() or time.monotonic() - began >= seconds

        try:
            while not enough():
                if self._round(report, enough):
                    quiet_since = time.monotonic()
                    self._pacing.worked()
                elif not report.claimed or time.monotonic() - quiet_since >= linger:
                    break
                else:
                    stop.wait(_LOOK_AGAIN)
                if once:
                    break
        except (BrokerError, OperationalError, InterfaceError) as error:
            report.outage = f"{type(error).__name__}: {error}"
            self._pacing.failed(error)
            self.close()
        else:
            self._pacing.worked()
        report.seconds = time.monotonic() - began
        return report

    def waiting(self) -> bool:
        """Whether anything is due, for this relay or for another one."""
        return bool(self._store.busy_lanes(self.broker, self._lanes))

    def close(self) -> None:
        """Drop the broker's connection, and the database's where no transaction uses it."""
        self._drop()
        connection = connections[self.using]
        if not connection.in_atomic_block:
            connection.close()

    def _round(self, report: DrainReport, enough: Callable[[], bool]) -> bool:
        """Visit each lane that has something to do; whether anything was claimed."""
        before = report.claimed
        lanes = self._store.busy_lanes(self.broker, self._lanes)
        # In no order: relays get out of each other's way, and a lane that ends each drain with an
        # outage does not starve the ones after it.
        random.shuffle(lanes)
        if not lanes:
            self._keep_alive()
        for lane in lanes:
            if enough():
                break
            # Connected before the lane is taken: an unreachable broker must not hold a lease.
            self._connect()
            held = self._store.acquire(
                self.broker, lane, self._lanes, self._owner, self._settings.lease
            )
            if held is not None:
                self._visit(held, report, enough)
        return report.claimed > before

    def _visit(self, held: Lease, report: DrainReport, enough: Callable[[], bool]) -> None:
        try:
            for visit in range(_PAGES_A_VISIT):
                page = self._claim(held)
                if not page:
                    self._store.give_back(held)
                    return
                if held.remaining() < self._settings.lease.total_seconds() * _FRESH:
                    # Reading the page took so long that too little time is left to send it.
                    held = self._store.renew(held, self._settings.lease)
                at_once = self._at_once.get(held.lane, self._publisher.window)
                window = Window(page, self._judge, at_once, self._publisher.window_bytes)
                outage = self._hand_over(window, held)
                last = (
                    outage is not None
                    or enough()
                    or len(page) < self._settings.batch_size
                    or visit == _PAGES_A_VISIT - 1
                )
                lease = timedelta(0) if last else self._settings.lease
                held = self._store.settle(held, window.outcomes, lease)
                report.settled(len(page), window.outcomes)
                if outage is not None:
                    raise outage
                if last:
                    return
        except LeaseLost as error:
            report.fenced += 1
            logger.warning("%s", error)

    def _claim(self, held: Lease) -> list[Entry]:
        due = self._store.due(held, self._settings.batch_size)
        return due + self._store.claim(held, self._settings.batch_size - len(due))

    def _hand_over(self, window: Window, held: Lease) -> BrokerError | None:
        """Submit and collect until the window is answered; the outage, if one ended it."""
        # What is submitted by then is answered or given up while there is time to settle.
        give_up = held.expires - MARGIN.total_seconds()
        submit_until = give_up - self._settings.confirm_timeout.total_seconds()
        try:
            self._connect()
            while window:
                self._submit(window, submit_until)
                self._collect(window, give_up)
        except BrokerError as error:
            self._drop()
            if isinstance(error, BrokerMisconfigured) and self._suspect(window, held.lane, error):
                return None
            return error
        except BaseException:
            # Such as a time limit of the process: no id is sent twice over one connection.
            self._drop()
            raise
        if held.lane in self._at_once:
            self._at_once[held.lane] = min(self._at_once[held.lane] * 2, self._publisher.window)
        return BrokerUnavailable(window.doubt) if window.doubt else None

    def _suspect(self, window: Window, lane: int, error: BrokerMisconfigured) -> bool:
        """One of those in flight made the broker break off; fewer at a time will show which.

        Whether to go on at once: its neighbours must not wait. But if nothing else gets through
        either, the broker is better left alone for a while.
        """
        suspects = window.in_flight
        if len(suspects) == 1:
            window.fail(suspects[0], type(error).__name__, str(error))
            return Done() in window.outcomes.values()
        if suspects:
            self._at_once[lane] = len(suspects) // 2
        return bool(suspects)

    def _submit(self, window: Window, until: float) -> None:
        # The clock is read before each: a relay that was stopped must not go on after its lease.
        while time.monotonic() < until:
            entry = window.next()
            if entry is None:
                return
            try:
                address = routes.address(entry.message.topic, self.broker)
                self._publisher.submit(entry.message, address)
            except BrokerError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, this message caused it
                # Half of it may have been written, so the connection is of no more use.
                window.fail(entry, type(error).__name__, str(error))
                window.abandon()
                self._drop()
        window.stop()

    def _collect(self, window: Window, give_up: float) -> None:
        """Take the answers that come first.

        Raises `BrokerUnavailable` if none comes within CONFIRM_TIMEOUT, or by ``give_up``.
        """
        timeout = self._settings.confirm_timeout
        deadline = min(time.monotonic() + timeout.total_seconds(), give_up)
        answered = not window.in_flight
        while not answered:
            # A driver may come back early without an answer; that must not start the wait again.
            for confirm in self._publisher.confirms(max(0.0, deadline - time.monotonic())):
                window.take(confirm)
                answered = True
            if not answered and time.monotonic() >= deadline:
                message = (
                    f"Broker {self.broker!r} did not answer within CONFIRM_TIMEOUT ({timeout}); "
                    "what is unanswered is sent again."
                )
                raise BrokerUnavailable(message)

    def _judge(self, entry: Entry, error_class: str, error: str) -> Failed:
        attempts = entry.attempts + 1
        counted = attempts - entry.forgiven
        if counted < self._settings.max_attempts:
            delay = self._settings.backoff.delay(counted)
            return Failed(error_class, error, delay, entry.revision)
        what = (entry.message.id, entry.message.topic, attempts, error)
        logger.error("Message %s (%s) is dead after %d attempts: %s", *what)
        return Failed(error_class, error, None, entry.revision)

    def _connect(self) -> None:
        self._keep_alive()
        if not self._opened:
            self._publisher.open()
            self._opened = True

    def _keep_alive(self) -> None:
        """Serve the idle connection; one that died while idle is no outage yet."""
        if self._opened:
            try:
                self._publisher.confirms(0)
            except BrokerUnavailable:
                self._drop()

    def _drop(self) -> None:
        self._opened = False
        self._publisher.close()
