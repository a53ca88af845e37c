"""The options by which a command is told which messages are meant."""

from __future__ import annotations

import argparse
import sys
import uuid
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from inbox.selection import STATES, Selection
from outbox.runtime.commands import USAGE, moment


def add_arguments(parser: CommandParser) -> None:
    """Declare them."""
    several: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument(
        "--id", **several, type=message_id, metavar="ID", help="this one (repeatable)"
    )
    parser.add_argument(
        "--ids-from", metavar="FILE", help="the ids in this file, one a line; - is the input"
    )
    parser.add_argument("--state", **several, choices=STATES, help="in this state (repeatable)")
    parser.add_argument(
        "--topic", **several, metavar="PATTERN", help="of this topic, such as orders.* (repeatable)"
    )
    parser.add_argument("--key", help="of this key")
    parser.add_argument("--group", **several, metavar="NAME", help="of this group (repeatable)")
    parser.add_argument("--error", metavar="CLASS", help="whose last error was of this class")
    for name, help_text in (("--since", "received at this time or later"), ("--until", "before")):
        parser.add_argument(
            name, type=moment, metavar="TIME", help=f"{help_text}: ISO 8601, or 2h for 2 hours ago"
        )


def selection(options: dict[str, Any]) -> Selection:
    """What was asked for. Raises `CommandError` 2 for a file of ids that cannot be read."""
    ids = tuple(options["id"])
    if options["ids_from"]:
        ids += _read(options["ids_from"])
    return Selection(
        ids=ids if ids or options["ids_from"] else None,
        states=tuple(options["state"]),
        topics=tuple(options["topic"]),
        key=options["key"],
        groups=tuple(options["group"]),
        error=options["error"],
        since=options["since"],
        until=options["until"],
    )


def message_id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no id: it is a UUID") from error


def _read(name: str) -> tuple[uuid.UUID, ...]:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text()
        return tuple(message_id(line.strip()) for line in text.splitlines() if line.strip())
    except (OSError, UnicodeDecodeError, argparse.ArgumentTypeError) as error:
        raise CommandError(f"--ids-from {name}: {error}", returncode=USAGE) from error
