"""What each group has taken in, and what is left to do."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
from argparse import ArgumentParser
from dataclasses import asdict, fields
from datetime import timedelta
from typing import Any, Final

from django.core.management.base import BaseCommand
from django.db import router

from inbox import stats
from inbox.models import InboxMessage

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Command(BaseCommand):
    """Reads indexes only: what is not processed, and what was processed of late."""

    help = "Count messages by state: those that are not processed, and those processed of late."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """How to group, how far to look back, how to print."""
        parser.add_argument(
            "--by", choices=("state", "group", "topic"), default="state", help="grouping"
        )
        parser.add_argument(
            "--since",
            type=_duration,
            default=timedelta(hours=1),
            metavar="DURATION",
            help="count processed messages of this span, such as 30s, 5m, 2h, 7d (default 1h)",
        )
        parser.add_argument("--database", metavar="ALIAS", help="database of the inbox")
        parser.add_argument("--json", action="store_true", help="one JSON document")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print totals and groups."""
        using = options["database"] or router.db_for_write(InboxMessage)
        groups = stats.figures(using, options["by"], options["since"])
        total = stats.total(groups, options["since"])
        if options["json"]:
            at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            document = {
                "v": 1,
                "command": "inbox_stats",
                "database": using,
                "at": at,
                "totals": asdict(total),
                "groups": [{"name": name, **asdict(part)} for name, part in groups.items()],
            }
            self.stdout.write(json.dumps(document))
            return
        columns = [field.name for field in fields(stats.Figures)]
        width = max(len(name) for name in [options["by"], "total", *groups])
        self.stdout.write(_line(options["by"], columns, columns, width))
        for name, part in [*groups.items(), ("total", total)]:
            self.stdout.write(_line(name, list(asdict(part).values()), columns, width))


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if found is None or int(found[1]) == 0:
        message = f"{text!r} is no duration such as 30s, 5m, 2h or 7d"
        raise argparse.ArgumentTypeError(message)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _line(name: str, values: list[Any], columns: list[str], width: int) -> str:
    cells = (_cell(v).rjust(len(c) + 2) for v, c in zip(values, columns, strict=True))
    return f"{name:<{width}}" + "".join(cells)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
