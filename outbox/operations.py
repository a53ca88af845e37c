"""What people do about messages: the same verbs for commands and admin."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction

from outbox import wakeups
from outbox.store.retrying import Retried
from outbox.store.retrying import retry as store_retry


def retry(  # noqa: PLR0913 - as the store's
    using: str,
    positions: Sequence[int],
    *,
    actor: str,
    reason: str = "",
    delay: timedelta = timedelta(0),
    reset_attempts: bool = False,
) -> Retried:
    """As `outbox.store.retrying.retry`, and nudge the relay after the commit."""
    with transaction.atomic(using=using):
        outcome = store_retry(
            using,
            positions,
            actor=actor,
            reason=reason,
            delay=delay,
            reset_attempts=reset_attempts,
        )
        if not delay:
            for broker in outcome.brokers:
                wakeups.after_commit(broker, using)
    return outcome
