"""What the operators' commands of both apps share: options, answers, confirmation."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections
from django.utils import timezone
from django.utils.dateparse import parse_datetime

ERROR: Final = 1
USAGE: Final = 2
NOTHING_MATCHED: Final = 3
PARTIAL: Final = 4
DRIFT: Final = 5
BROKER_UNREACHABLE: Final = 6


_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_FIGURE: Final = re.compile(r"-|\d[\d.]*[smhd]?")
_TYPE_THE_COUNT: Final = 1000
"""Changes of more rows than this are confirmed by typing their number."""


def duration(text: str) -> timedelta:
    """The type of an option such as ``30s``, ``5m``, ``2h``, ``7d``."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if found is None or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 30s, 5m, 2h or 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def positive(text: str) -> int:
    """The type of an option that counts, such as ``--limit``."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def moment(text: str) -> dt.datetime | timedelta:
    """The type of an option that takes a time: ISO 8601 (naive: TIME_ZONE), or how long ago."""
    try:
        given = parse_datetime(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
    if given is not None:
        return given if timezone.is_aware(given) else timezone.make_aware(given)
    try:
        return duration(text)
    except argparse.ArgumentTypeError as error:
        message = f"{text!r} is neither a time such as 2026-01-31T12:00Z nor a duration such as 2h"
        raise argparse.ArgumentTypeError(message) from error


def as_json(value: object) -> str:
    """A time as ISO 8601 in UTC with ``Z``, a duration in seconds, all else as text."""
    if isinstance(value, dt.datetime):
        aware = value if timezone.is_aware(value) else timezone.make_aware(value)
        return aware.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value)


class OperatorCommand(BaseCommand):
    """A command with ``--database`` and ``--json``, whose errors are JSON too when asked for."""

    def add_arguments(self, parser: CommandParser) -> None:
        """The options that every command has."""
        parser.add_argument("--database", choices=tuple(connections), help="only this database")
        parser.add_argument("--json", action="store_true", help="one JSON document")

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run, and with ``--json`` say errors on stdout as well."""
        self._answered = False
        try:
            return super().execute(*args, **options)
        except CommandError as error:
            # A document that was written already tells what failed.
            if options.get("json") and not self._answered:
                fault = {"code": error.returncode, "message": str(error)}
                self.stdout.write(json.dumps({"v": 1, "command": self.name, "error": fault}))
            raise

    @property
    def name(self) -> str:
        """The command's name: its module's."""
        return type(self).__module__.rpartition(".")[2]

    def answer(self, database: str | None, content: Mapping[str, object]) -> None:
        """Write the JSON document; ``database`` is None when it spans several."""
        head = {"v": 1, "command": self.name, "database": database, "at": dt.datetime.now(dt.UTC)}
        document = {**head, **content}
        self.stdout.write(json.dumps(document, default=as_json, allow_nan=False))
        self._answered = True

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write rows under their columns; figures to the right, an absent value as ``-``."""
        cells = [list(columns), *([cell(value) for value in row] for row in rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
        figures = [all(_FIGURE.fullmatch(row[i]) for row in cells[1:]) for i in range(len(columns))]
        for row in cells:
            padded = (
                text.rjust(width) if right else text.ljust(width)
                for text, width, right in zip(row, widths, figures, strict=True)
            )
            self.stdout.write("  ".join(padded).rstrip())

    def confirm(self, count: int, *, ask: bool) -> None:
        """Ask a person before ``count`` rows change; with ``ask`` off, do not.

        Raises `CommandError` 2 when refused, or when nobody is there to answer.
        """
        if not ask:
            return
        if not sys.stdin.isatty():
            message = "Nobody is there to confirm: pass --no-input to go on, --dry-run to look."
            raise CommandError(message, returncode=USAGE)
        wanted = str(count) if count > _TYPE_THE_COUNT else "yes"
        self.stderr.write(f"Type {wanted} to go on: ", ending="")
        if input().strip() != wanted:
            raise CommandError("Not confirmed: nothing was changed.", returncode=USAGE)


def cell(value: object) -> str:
    """A value as a person reads it in a table."""
    if value is None or value == "":
        return "-"
    if isinstance(value, dt.datetime):
        return as_json(value)
    return f"{value:.1f}" if isinstance(value, float) else str(value)
