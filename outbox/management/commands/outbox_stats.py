"""What is not on the brokers yet, and why."""

from __future__ import annotations

from typing import Any, Final

from django.core.management.base import CommandParser
from django.db import router

from outbox.models import OutboxMessage
from outbox.runtime.commands import OperatorCommand
from outbox.store import stats

_COLUMNS: Final = ("pending", "retrying", "parked", "dead", "oldest")


class Command(OperatorCommand):
    """Reads the table of what is unsent; the message table is never counted."""

    help = "Count what is not on the brokers yet, by state."

    def add_arguments(self, parser: CommandParser) -> None:
        """How to group."""
        super().add_arguments(parser)
        parser.add_argument(
            "--by", choices=("state", "broker", "topic", "error"), default="state", help="grouping"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print totals and groups."""
        using = options["database"] or router.db_for_write(OutboxMessage)
        totals = stats.totals(using)
        groups = list(stats.groups(using, options["by"]))
        if options["json"]:
            self.answer(using, {"totals": totals, "groups": groups})
            return
        rows = [*groups, {"name": "total", **totals}]
        self.table((options["by"], *_COLUMNS), [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[object]:
    *counts, oldest = (row[column] for column in _COLUMNS)
    return [row["name"], *counts, None if oldest is None else f"{oldest:.1f}s"]
