"""Options that say which messages a command is about."""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from outbox.runtime.commands import USAGE, moment
from outbox.store.selection import Selection


def add_selection(parser: CommandParser, states: Sequence[str]) -> None:
    """The options of a selection; ``states`` are those that the command works on."""
    group = parser.add_argument_group("selection", "which messages; all that is given must hold")
    group.add_argument(
        "--id", action="append", type=identifier, metavar="ID", help="this message (repeatable)"
    )
    group.add_argument("--ids-from", metavar="FILE", help="ids, one a line; - is standard input")
    group.add_argument(
        "--state", action="append", choices=states, help="in this state (repeatable)"
    )
    group.add_argument(
        "--topic", action="append", metavar="PATTERN", help="such as orders.* (repeatable)"
    )
    group.add_argument("--key", help="of this key")
    group.add_argument("--broker", metavar="ALIAS", help="for this broker")
    group.add_argument("--error", metavar="CLASS", help="whose last error was of this class")
    group.add_argument(
        "--since", type=moment, metavar="T", help="created at or after; a time, or 2h for ago"
    )
    group.add_argument("--until", type=moment, metavar="T", help="created before")
    group.add_argument("--all", action="store_true", help="all of them")


def selected(options: Mapping[str, Any]) -> Selection:
    """The selection that was asked for. Raises `CommandError` 2 when there was none."""
    ids = [*(options["id"] or ()), *_ids_from(options["ids_from"])]
    selection = Selection(
        ids=ids,
        states=options["state"] or (),
        topics=options["topic"] or (),
        key=options["key"],
        broker=options["broker"] or "",
        error=options["error"] or "",
        since=options["since"],
        until=options["until"],
    )
    if options["ids_from"] and not ids:
        raise CommandError(f"{options['ids_from']} has no ids.", returncode=USAGE)
    if selection == Selection(ids=ids) and not ids and not options["all"]:
        message = "Say which messages, such as --state dead or --id ID, or --all for all of them."
        raise CommandError(message, returncode=USAGE)
    return selection


def identifier(text: str) -> uuid.UUID:
    """The type of a message id."""
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no message id (a UUID)") from error


def _ids_from(path: str | None) -> Iterator[uuid.UUID]:
    if path is None:
        return
    try:
        lines = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        yield from (identifier(line.strip()) for line in lines.splitlines() if line.strip())
    except (OSError, argparse.ArgumentTypeError) as error:
        raise CommandError(f"--ids-from {path}: {error}", returncode=USAGE) from error
