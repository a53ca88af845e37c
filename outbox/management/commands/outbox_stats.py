"""What is not on the brokers yet, and why."""

from __future__ import annotations

import datetime as dt
import json
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand
from django.db import connections, router

from outbox.models import OutboxMessage
from outbox.store import stats

_COLUMNS: Final = ("pending", "retrying", "parked", "dead", "oldest")


class Command(BaseCommand):
    """Reads the table of what is unsent; the message table is never counted."""

    help = "Count what is not on the brokers yet, by state."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """How to group, and how to print."""
        parser.add_argument(
            "--by", choices=("state", "broker", "topic", "error"), default="state", help="grouping"
        )
        parser.add_argument("--database", choices=tuple(connections), help="database of the outbox")
        parser.add_argument("--json", action="store_true", help="one JSON document")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print totals and groups."""
        using = options["database"] or router.db_for_write(OutboxMessage)
        totals = stats.totals(using)
        groups = list(stats.groups(using, options["by"]))
        if options["json"]:
            at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            head = {"v": 1, "command": "outbox_stats", "database": using, "at": at}
            self.stdout.write(json.dumps({**head, "totals": totals, "groups": groups}))
            return
        width = max([len(options["by"]), *(len(group["name"]) for group in groups)], default=8)
        self.stdout.write(_line(options["by"], dict(zip(_COLUMNS, _COLUMNS, strict=True)), width))
        for group in groups:
            self.stdout.write(_line(group["name"], group, width))
        self.stdout.write(_line("total", totals, width))


def _line(name: str, row: dict[str, Any], width: int) -> str:
    cells = []
    for column in _COLUMNS:
        value = row[column]
        if isinstance(value, float):
            value = f"{value:.1f}s"
        cells.append(f"{'-' if value is None else value:>10}")
    return f"{name:<{width}}" + "".join(cells)
