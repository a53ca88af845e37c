"""The timeline: what is written beside a change, in its transaction."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from inbox.models import Happening, InboxEvent, InboxMessage
from inbox.reading import evidence
from inbox.verdicts import Claim, Failure

KEPT_TEXT: Final = 10_000
"""Characters of an error that are kept."""
KEPT_DETAIL: Final = 1000
"""Characters of an event's texts that are kept: there are as many events as attempts."""


def record_failure(claim: Claim, failure: Failure, using: str) -> None:
    """The run that failed, and what became of its message."""
    pk = (
        InboxMessage.objects.using(using)
        .values_list("pk", flat=True)
        .get(group_name=claim.arrival.group, message_id=claim.arrival.message.id)
    )
    error = f"{failure.error_class}: {failure.error}" if failure.error else failure.error_class
    outcome, detail = Happening.DEAD, f"given up after {_times(claim.token)}"
    if failure.delay is not None:
        outcome, detail = Happening.PARKED, f"runs again in {_seconds(failure.delay)} s"
    InboxEvent.objects.using(using).bulk_create(
        InboxEvent(
            message_id=pk, name=name, attempt=claim.token, detail=evidence(text, KEPT_DETAIL)
        )
        for name, text in ((Happening.FAILED, error), (outcome, detail))
    )


def _times(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"


def _seconds(delay: timedelta) -> str:
    return f"{delay.total_seconds():,.1f}".removesuffix(".0")
