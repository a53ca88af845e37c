"""What happened to a message."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import router

from outbox.management import documents
from outbox.management.selecting import identifier
from outbox.models import OutboxMessage
from outbox.runtime.commands import OperatorCommand, as_json, cell
from outbox.store.history import history
from outbox.store.selection import load


class Command(OperatorCommand):
    """The timeline of `outbox.history`, and the message as it travels."""

    help = "Show one message: where it stands and what happened to it."

    def add_arguments(self, parser: CommandParser) -> None:
        """Which one, and how much of it."""
        super().add_arguments(parser)
        parser.add_argument("id", type=identifier, help="id of the message")
        parser.add_argument("--payload", action="store_true", help="with its payload")
        parser.add_argument("--headers", action="store_true", help="with its headers")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print it."""
        using = options["database"] or router.db_for_write(OutboxMessage)
        found = history(options["id"], using)
        if found is None:
            message = (
                f"There is no message {options['id']} in the database {using!r}: it never was, was "
                "rolled back, or has been removed since."
            )
            raise CommandError(message)
        (document,) = documents.messages(load(using, [found.seq]), using)
        extra: dict[str, object] = {}
        if options["headers"]:
            extra["headers"] = dict(found.message.headers)
        if options["payload"]:
            extra["payload"] = documents.payload(found.message)
        timeline = [{"at": e.at, "event": e.name, "detail": e.detail} for e in found.events]
        if options["json"]:
            self.answer(using, {"message": document, **extra, "timeline": timeline})
            return
        for name, value in {**document, **extra}.items():
            text = json.dumps(value) if isinstance(value, dict | list) else cell(value)
            self.stdout.write(f"{name:<14}{text}")
        for event in found.events:
            at = as_json(event.at) if event.at else "-"
            self.stdout.write(f"{at:<26}{event.name:<11}{event.detail}".rstrip())
