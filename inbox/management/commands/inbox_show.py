"""What happened to one message, group by group."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.core.management.base import CommandError, CommandParser

from inbox import databases, documents, timeline
from inbox.management import selecting
from inbox.models import InboxMessage, InboxQuarantine
from inbox.selection import QUARANTINED, Selection
from inbox.timeline import GroupHistory
from outbox.runtime.commands import ERROR, OperatorCommand, as_json, cell

_EVIDENCE = 100
"""Quarantined deliveries that are shown for a group, the newest."""


@dataclass(frozen=True, slots=True)
class _Found:
    history: GroupHistory
    row: InboxMessage | None
    quarantined: list[InboxQuarantine]

    def document(self, *, with_headers: bool, with_payload: bool) -> documents.Document:
        shown: documents.Document = {
            "message": documents.document(self.row or self.quarantined[-1]),
            "timeline": [documents.event(step) for step in self.history.events],
            "quarantined": [documents.evidence(delivery) for delivery in self.quarantined],
        }
        if with_headers:
            shown["headers"] = (self.row or self.quarantined[-1]).headers
        if with_payload:
            shown["payload"] = None if self.row is None else documents.payload(self.row)
        return shown


class Command(OperatorCommand):
    """Payload and headers only when asked for: they may hold personal data."""

    help = "Show what each group did with a message, step by step."

    def add_arguments(self, parser: CommandParser) -> None:
        """Which message, in which groups, with what of it."""
        super().add_arguments(parser)
        parser.add_argument("id", type=selecting.message_id, metavar="ID", help="of the message")
        parser.add_argument(
            "--group", action="append", metavar="NAME", help="only this group (repeatable)"
        )
        parser.add_argument("--headers", action="store_true", help="with its headers")
        parser.add_argument(
            "--payload", action="store_true", help="with its body, while that is kept"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print the timelines."""
        database = options["database"]
        aliases = [database] if database else databases.aliases()
        found = [entry for alias in aliases for entry in _found(options, alias)]
        if not found:
            message = f"No group knows the message {options['id']}: see inbox_list."
            raise CommandError(message, returncode=ERROR)
        parts = {"with_headers": options["headers"], "with_payload": options["payload"]}
        if options["json"]:
            shown = [entry.document(**parts) for entry in found]
            self.answer(aliases[0] if len(aliases) == 1 else None, {"messages": shown})
            return
        for entry in found:
            self._tell(entry, entry.document(**parts))

    def _tell(self, found: _Found, shown: documents.Document) -> None:
        history = found.history
        topic = documents.printable(history.topic) or "a message without a topic"
        head = f"{history.group}: {topic} {history.state}"
        self.stdout.write(self.style.MIGRATE_HEADING(head))
        for step in history.events:
            self.stdout.write(
                f"  {cell(step.at)}  {step.name:<11}  {documents.printable(step.detail)}".rstrip()
            )
        for delivery in shown["quarantined"]:
            if delivery["known_fingerprint"]:
                self.stdout.write(f"  quarantined at {cell(delivery['at'])}: fingerprint")
                self.stdout.write(f"    of what came      {delivery['fingerprint']}")
                self.stdout.write(f"    of what is known  {delivery['known_fingerprint']}")
        for name in ("headers", "payload"):
            if name in shown:
                text = json.dumps(shown[name], indent=2, ensure_ascii=False, default=as_json)
                lines = map(documents.printable, text.split("\n"))
                self.stdout.write(f"  {name}: " + "\n  ".join(lines))


def _found(options: dict[str, Any], using: str) -> Iterator[_Found]:
    wanted = options["group"]
    for history in timeline.history(options["id"], using):
        if wanted and history.group not in wanted:
            continue
        one = Selection(ids=(options["id"],), groups=(history.group,))
        kept = one.quarantined(InboxQuarantine.objects.using(using))
        yield _Found(
            history,
            one.messages(InboxMessage.objects.using(using)).first()
            if history.state != QUARANTINED
            else None,
            list(kept.order_by("-arrived_at", "-id")[:_EVIDENCE])[::-1],
        )
