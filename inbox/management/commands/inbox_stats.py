"""What each group has taken in, and what is left to do."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser
from django.db import router

from inbox import stats
from inbox.models import InboxMessage
from outbox.runtime.commands import OperatorCommand, duration


class Command(OperatorCommand):
    """Reads indexes only: what is not processed, and what was processed of late."""

    help = "Count messages by state: those that are not processed, and those processed of late."

    def add_arguments(self, parser: CommandParser) -> None:
        """How to group, how far to look back."""
        super().add_arguments(parser)
        parser.add_argument(
            "--by", choices=("state", "group", "topic"), default="state", help="grouping"
        )
        parser.add_argument(
            "--since",
            type=duration,
            default=timedelta(hours=1),
            metavar="DURATION",
            help="count processed messages of this span, such as 30s, 5m, 2h, 7d (default 1h)",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print totals and groups."""
        using = options["database"] or router.db_for_write(InboxMessage)
        groups = stats.figures(using, options["by"], options["since"])
        total = stats.total(groups, options["since"])
        if options["json"]:
            named = [{"name": name, **asdict(part)} for name, part in groups.items()]
            self.answer(using, {"totals": asdict(total), "groups": named})
            return
        columns = [field.name for field in fields(stats.Figures)]
        rows = [
            [name, *asdict(part).values()] for name, part in [*groups.items(), ("total", total)]
        ]
        self.table([options["by"], *columns], rows)
