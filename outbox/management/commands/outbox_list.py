"""Which messages there are."""

from __future__ import annotations

import json
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser
from django.db import router

from outbox.management import documents
from outbox.management.selecting import add_selection, selected
from outbox.models import OutboxMessage
from outbox.runtime.commands import NOTHING_MATCHED, USAGE, OperatorCommand, as_json, positive
from outbox.store.selection import UNSENT, load
from outbox.store.types import PUBLISHED

_COLUMNS: Final = ("id", "state", "topic", "key", "attempts", "age", "error")


class Command(OperatorCommand):
    """Newest first, as many as asked for; the message table is never counted."""

    help = "List messages: which ones, where they stand, and why."

    def add_arguments(self, parser: CommandParser) -> None:
        """Which messages, in which order, and what of them."""
        super().add_arguments(parser)
        add_selection(parser, (*UNSENT, PUBLISHED))
        parser.add_argument(
            "--order",
            choices=("created", "-created", "due", "-attempts"),
            default="-created",
            help="due and -attempts list what is not published",
        )
        parser.add_argument("--limit", type=positive, default=50, help="at most so many (50)")
        parser.add_argument("--fields", metavar="A,B", help="columns, by the names of --json")
        parser.add_argument("--json-lines", action="store_true", help="one JSON object a message")
        parser.add_argument("--fail-on-empty", action="store_true", help="exit 3 if there are none")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print them."""
        using = options["database"] or router.db_for_write(OutboxMessage)
        limit = options["limit"]
        # Looking at all of them changes nothing, so nobody needs to say --all.
        positions = selected(options | {"all": True}).positions(using, limit + 1, options["order"])
        found = documents.messages(load(using, positions[:limit]), using)
        truncated = len(positions) > limit
        if options["json"]:
            self.answer(using, {"messages": found, "truncated": truncated})
        elif options["json_lines"]:
            for one in found:
                self.stdout.write(json.dumps(one, default=as_json, allow_nan=False))
        else:
            self._print(found, options["fields"])
            if truncated:
                self.stderr.write(f"There are more than {limit}; --limit shows more.")
        if options["fail_on_empty"] and not found:
            raise CommandError("No message matches.", returncode=NOTHING_MATCHED)

    def _print(self, found: list[dict[str, Any]], fields: str | None) -> None:
        columns = tuple(fields.split(",")) if fields else _COLUMNS
        if found and (unknown := sorted(set(columns) - set(found[0]))):
            message = f"No such field: {', '.join(unknown)}; there are {', '.join(found[0])}."
            raise CommandError(message, returncode=USAGE)
        self.table(columns, [[_cell(one, column) for column in columns] for one in found])


def _cell(one: dict[str, Any], column: str) -> object:
    value = one[column]
    if column == "attempts":
        return f"{value}/{one['max_attempts']}" if value else None
    if column == "age":
        return f"{value:.1f}s"
    if column == "error" and value:
        return value["class"]
    return str(value) if isinstance(value, dict) else value
