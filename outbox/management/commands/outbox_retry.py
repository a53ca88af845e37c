"""Try messages again that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser

from outbox import operations
from outbox.management.changes import ChangeCommand, Result
from outbox.runtime.commands import duration


class Command(ChangeCommand):
    """Those that wait for their next attempt become due; dead ones get one more round."""

    help = "Make messages that failed due again: those that wait to be retried, and dead ones."
    done = "retried"
    # Parked ones are not made due: they go on by themselves once their key's head is published.
    states = ("retrying", "parked", "dead")

    def add_arguments(self, parser: CommandParser) -> None:
        """When, and with how many attempts."""
        super().add_arguments(parser)
        parser.add_argument("--delay", type=duration, help="due in 30s, 5m, 2h, 7d (now)")
        parser.add_argument(
            "--reset-attempts",
            action="store_true",
            help="count attempts from 0 (else kept, and a dead one gets MAX_ATTEMPTS more)",
        )

    def change(self, using: str, positions: Sequence[int], options: Mapping[str, Any]) -> Result:
        """Make these due, in one transaction."""
        outcome = operations.retry(
            using,
            positions,
            actor=options["actor"],
            reason=options["reason"],
            delay=options["delay"] or timedelta(0),
            reset_attempts=options["reset_attempts"],
        )
        return Result(changed=len(outcome.changed), skipped=outcome.skipped)
