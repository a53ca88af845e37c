"""Which messages the groups have, and which deliveries they could not take in."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser

from inbox import databases, documents
from inbox.management import selecting
from inbox.selection import ORDERS, listed
from outbox.runtime.commands import NOTHING_MATCHED, OperatorCommand, as_json, positive

_COLUMNS: Final = ("received_at", "group", "state", "attempts", "topic", "key", "id", "error")
_FIELDS: Final = (
    *_COLUMNS,
    *("source", "max_attempts", "processed_at", "next_attempt_at", "handler", "content_type"),
    *("size", "fingerprint", "has_body", "duplicates", "database"),
)


class Command(OperatorCommand):
    """Without a selection: the newest of all."""

    help = "List messages and quarantined deliveries by state, topic, group, error or time."

    def add_arguments(self, parser: CommandParser) -> None:
        """Which, how many, in which order, as what."""
        super().add_arguments(parser)
        selecting.add_arguments(parser)
        parser.add_argument("--limit", type=positive, default=50, metavar="N", help="at most N")
        parser.add_argument(
            "--order", choices=tuple(ORDERS), default="-received", help="default: newest first"
        )
        parser.add_argument(
            "--fields", type=_fields, metavar="A,B", help=f"only these: {', '.join(_FIELDS)}"
        )
        parser.add_argument("--json-lines", action="store_true", help="one JSON object a message")
        parser.add_argument(
            "--fail-on-empty", action="store_true", help="exit 3 when nothing matches"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print them."""
        limit, only, database = options["limit"], options["fields"], options["database"]
        aliases = [database] if database else databases.aliases()
        rows = listed(selecting.selection(options), aliases, options["order"], limit + 1)
        found = [_some(documents.document(row), only) for row in rows[:limit]]
        truncated = len(rows) > limit
        if options["json"]:
            self.answer(
                aliases[0] if len(aliases) == 1 else None,
                {"messages": found, "truncated": truncated},
            )
        elif options["json_lines"]:
            for line in found:
                self.stdout.write(json.dumps(line, default=as_json, allow_nan=False))
        elif found:
            columns = only or _COLUMNS
            self.table(columns, [[_cell(line[name]) for name in columns] for line in found])
            if truncated:
                self.stderr.write(f"There are more than {limit}: see --limit.")
        if not found and not options["json"]:
            self.stderr.write("Nothing matches.")
        if not found and options["fail_on_empty"]:
            raise CommandError("Nothing matches.", returncode=NOTHING_MATCHED)


def _some(document: documents.Document, only: list[str] | None) -> documents.Document:
    return document if only is None else {name: document[name] for name in only}


def _cell(value: object) -> object:
    plain = value["class"] if isinstance(value, dict) else value
    return documents.printable(plain) if isinstance(plain, str) else plain


def _fields(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in _FIELDS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(_FIELDS)}")
    return names
