"""What happens to a delivery: the one core that every door calls."""

from __future__ import annotations

import contextlib
import enum
import logging

from django.db import DataError, Error, IntegrityError, router, transaction

from inbox import registry, store, trouble
from inbox.conf import InboxSettings, get_settings
from inbox.delivery import Delivery, Disposition, Outcome, Result
from inbox.exceptions import HandlerNotFound, HandlerSignal, HandlerSwallowed, Reject, Retry
from inbox.models import InboxMessage
from inbox.reading import Arrival, read
from inbox.registry import Handler
from inbox.verdicts import Claim, Failure, Verdict
from outbox.wire import DecodeError

log = logging.getLogger("inbox")

_ASKS = 3
"""How often a row that vanished while it was looked at is asked for again."""

_DUPLICATE = Outcome(Disposition.ACK, Result.DUPLICATE)
_DEAD = Outcome(Disposition.ACK, Result.DEAD)
_TWIN = Outcome(Disposition.RETRY, Result.UNRECORDED)

_ANSWERS = {
    Verdict.DUPLICATE: _DUPLICATE,
    Verdict.KNOWN: _DUPLICATE,
    Verdict.EXHAUSTED: _DEAD,
    Verdict.NOTED: _TWIN,
    Verdict.GONE: _TWIN,
}


class _Stage(enum.Enum):
    """How far a run came: it decides whose fault an error is."""

    ADMITTING = enum.auto()
    RUNNING = enum.auto()
    COMMITTING = enum.auto()


class Processor:
    """Takes deliveries in and runs their handlers, each in one transaction with its inbox row.

    Must not be called inside a transaction (except the one of Django's `TestCase`): that raises
    `RuntimeError`. The handler's own errors never leave it; errors that are no `Exception`
    (`SystemExit`, `KeyboardInterrupt`) do, after the rollback.
    """

    def __init__(self, settings: InboxSettings | None = None) -> None:
        """Use these settings, or the project's."""
        self._settings = settings or get_settings()
        self._owed: list[tuple[Claim, str]] = []

    def process(self, delivery: Delivery) -> Disposition:
        """Take one delivery in, and say what to tell its broker."""
        return self.handle(delivery).disposition

    def handle(self, delivery: Delivery) -> Outcome:
        """The same with the whole answer, for reports and tests."""
        using = self._database(delivery.group)
        try:
            self._give_back()
            return self._take_in(delivery, using)
        except Error as error:
            return _unrecorded(error)

    def run_due(self, group: str, limit: int) -> list[Outcome]:
        """Run the group's stored retries that are due, the longest due first, at most ``limit``.

        Stops early when nothing is due or when the database is in trouble (`Result.UNRECORDED`).
        """
        using = self._database(group)
        outcomes: list[Outcome] = []
        while len(outcomes) < limit:
            try:
                self._give_back()
                outcome = self._run_next(group, using)
            except Error as error:
                outcome = _unrecorded(error)
            if outcome is not None:
                outcomes.append(outcome)
            if outcome is None or outcome.result is Result.UNRECORDED:
                break
        return outcomes

    def _database(self, group: str) -> str:
        return self._settings.group(group).database or router.db_for_write(InboxMessage)

    def _take_in(self, delivery: Delivery, using: str) -> Outcome:
        try:
            arrival = read(delivery, self._settings.max_body)
        except DecodeError as error:
            store.quarantine(delivery, str(error), using)
            log.warning("group %s: unreadable delivery: %s", delivery.group, error)
            return Outcome(Disposition.ACK, Result.UNREADABLE, error)
        answer: Outcome | Verdict = Verdict.GONE
        repeat = delivery.redelivered
        for _ in range(_ASKS):
            answer = self._admit(arrival, using, repeat=repeat)
            if answer not in (Verdict.NOTED, Verdict.GONE):
                break
            repeat = repeat or answer is Verdict.NOTED
        if answer is Verdict.CONFLICT:
            return _set_aside(delivery, arrival, using)
        return answer if isinstance(answer, Outcome) else _ANSWERS[answer]

    def _admit(self, arrival: Arrival, using: str, *, repeat: bool) -> Outcome | Verdict:
        """Ask the table once, and run the handler if the answer is RUN."""
        claim = Claim(arrival)
        try:
            handler = registry.resolve(arrival.group, arrival.message.topic)
        except HandlerNotFound as error:
            return self._failed(claim, error, using)
        if repeat:
            verdict, claim = store.note(arrival, self._settings.max_attempts, using)
            if verdict is not Verdict.RUN:
                return verdict
        return self._run(handler, claim, using)

    def _run_next(self, group: str, using: str) -> Outcome | None:
        due = store.claim_due(group, self._settings.max_attempts, using)
        if due is None:
            return None
        answer: Outcome | Verdict
        answer, claim = due
        if answer is Verdict.RUN:
            try:
                handler = registry.resolve(group, claim.arrival.message.topic)
                answer = self._run(handler, claim, using)
            except HandlerNotFound as error:
                answer = self._failed(claim, error, using)
        if isinstance(answer, Outcome):
            return answer
        # Its attempts have run out, or another consumer has it.
        return _DEAD if answer is Verdict.EXHAUSTED else _DUPLICATE

    def _run(self, handler: Handler, claim: Claim, using: str) -> Outcome | Verdict:
        """The transaction: the row, the handler's writes, the commit."""
        stage, lost = _Stage.ADMITTING, False
        try:
            with transaction.atomic(using, durable=True):
                verdict = _enter(claim, using)
                if verdict is not Verdict.RUN:
                    return verdict
                stage = _Stage.RUNNING
                try:
                    handler.call(claim.arrival.message)
                    _require_committable(handler, using)
                except Exception:
                    lost = trouble.is_lost(using)
                    raise
                stage = _Stage.COMMITTING
        except Exception as error:
            if stage is _Stage.ADMITTING:
                raise
            asked = isinstance(error, HandlerSignal)
            if lost or (trouble.is_transient(error) and not asked):
                return self._broken_off(claim, error, using)
            return self._failed(claim, error, using, stage)
        return Outcome(Disposition.ACK, Result.PROCESSED)

    def _broken_off(self, claim: Claim, error: Exception, using: str) -> Outcome:
        trouble.close_old_connections()
        self._owed.append((claim, using))
        # The database may be away for long: then it is done before the next run.
        with contextlib.suppress(Error):
            self._give_back()
        return Outcome(Disposition.RETRY, Result.UNRECORDED, error)

    def _give_back(self) -> None:
        """Undo the count of attempts that the database broke off (D18)."""
        while self._owed:
            store.give_back(*self._owed[-1])
            self._owed.pop()

    def _failed(
        self, claim: Claim, error: Exception, using: str, stage: _Stage = _Stage.RUNNING
    ) -> Outcome | Verdict:
        """Record a failed run, unless a twin has finished or taken over the message meanwhile."""
        failure = self._judge(claim, error)
        if not store.fail(claim, failure, using):
            verdict = store.judge(claim.arrival, using)
            if verdict is Verdict.DUPLICATE and stage is _Stage.COMMITTING:
                log.error("%s: an on_commit hook failed", _name(claim.arrival), exc_info=error)
                return Outcome(Disposition.ACK, Result.PROCESSED, error)
            return verdict
        return _report(claim, failure, error)

    def _judge(self, claim: Claim, error: Exception) -> Failure:
        attempts = max(claim.attempts, 1)
        delay = self._settings.backoff.delay(attempts)
        if isinstance(error, Retry) and error.after is not None:
            delay = error.after
        hopeless = isinstance(error, Reject | HandlerNotFound)
        given_up = hopeless or attempts >= self._settings.max_attempts
        return Failure(type(error).__qualname__, _text(error), None if given_up else delay)


def process(delivery: Delivery) -> Disposition:
    """Take one delivery in with the project's settings; see `Processor`."""
    return Processor().process(delivery)


def _enter(claim: Claim, using: str) -> Verdict:
    if claim.token == 0:
        return store.admit(claim.arrival, using)
    return Verdict.RUN if store.take(claim, using) else Verdict.GONE


def _require_committable(handler: Handler, using: str) -> None:
    if not trouble.is_committable(using):
        message = f"{HandlerSwallowed.__doc__} The handler is at {handler.place}."
        raise HandlerSwallowed(message)


def _report(claim: Claim, failure: Failure, error: Exception) -> Outcome:
    trace = None if isinstance(error, HandlerSignal | HandlerNotFound) else error
    if failure.delay is None:
        log.error("%s is dead: %s", _name(claim.arrival), failure.error, exc_info=trace)
        return Outcome(Disposition.ACK, Result.DEAD, error)
    log.warning("%s failed: %s", _name(claim.arrival), failure.error, exc_info=trace)
    return Outcome(Disposition.ACK, Result.PARKED, error)


def _set_aside(delivery: Delivery, arrival: Arrival, using: str) -> Outcome:
    detail = "The id belongs to a message with another topic, key or body."
    store.quarantine(delivery, detail, using, conflict=arrival)
    log.error("%s: same id, other content: quarantined", _name(arrival))
    return Outcome(Disposition.ACK, Result.QUARANTINED)


def _unrecorded(error: Exception) -> Outcome:
    """RETRY while the database is in trouble; DEAD when it refuses this very content."""
    trouble.close_old_connections()
    refused = isinstance(error, DataError | IntegrityError)
    disposition = Disposition.DEAD if refused else Disposition.RETRY
    return Outcome(disposition, Result.UNRECORDED, error)


def _name(arrival: Arrival) -> str:
    return f"group {arrival.group}: message {arrival.message.id} ({arrival.message.topic})"


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the text of a user's exception is the user's code
        return "(the error has no readable text)"
