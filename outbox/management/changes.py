"""What the commands that change messages share: impact, confirmation, batches, result."""

from __future__ import annotations

import getpass
import os
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError, InterfaceError, router

from outbox.management.selecting import add_selection, selected
from outbox.models import OutboxMessage
from outbox.runtime.commands import (
    NOTHING_MATCHED,
    PARTIAL,
    OperatorCommand,
    as_json,
    positive,
)
from outbox.runtime.shutdown import StopSignal
from outbox.store.selection import Selection, load, state_of

BATCH: Final = 500
"""Messages a transaction."""
_LISTED: Final = 1000
_DATABASE_ERRORS: Final = (DatabaseError, InterfaceError)
_SAMPLES: Final = 5
_NO_LIMIT: Final = 10_000_000


@dataclass(slots=True)
class Result:
    """What a change did, message by message."""

    changed: int = 0
    skipped: list[tuple[uuid.UUID, str]] = field(default_factory=list)
    failed: list[tuple[uuid.UUID, str]] = field(default_factory=list)
    stopped: str = ""


class ChangeCommand(OperatorCommand):
    """A command that changes selected messages. Subclasses say what they do to a batch."""

    done: str
    """The word of the summary, such as ``retried``."""
    states: Sequence[str]
    """The states that the command works on."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Which messages, who asks and why, and how sure."""
        super().add_arguments(parser)
        add_selection(parser, self.states)
        parser.add_argument("--limit", type=positive, help="at most so many, the oldest first")
        parser.add_argument("--actor", default=_user(), help="who asks (the user of the system)")
        parser.add_argument("--reason", default="", help="why; kept with each message")
        parser.add_argument("--dry-run", action="store_true", help="show what would change")
        parser.add_argument(
            "--no-input", action="store_false", dest="interactive", help="do not ask"
        )
        parser.add_argument("--fail-on-empty", action="store_true", help="exit 3 if none matches")

    def change(self, using: str, positions: Sequence[int], options: Mapping[str, Any]) -> Result:
        """Change these, in one transaction."""
        raise NotImplementedError

    def handle(self, *_args: Any, **options: Any) -> None:
        """Show the impact, ask, change, and say what was done."""
        using = options["database"] or router.db_for_write(OutboxMessage)
        selection = self._selection(options)
        positions = selection.positions(using, options["limit"] or _NO_LIMIT, "created")
        result = Result(failed=_missing(selection, using))
        if not positions and not result.failed and options["fail_on_empty"]:
            raise CommandError("No message matches.", returncode=NOTHING_MATCHED)
        self._show_impact(using, positions)
        if positions and not options["dry_run"]:
            self.confirm(len(positions), ask=options["interactive"])
            self._run(using, positions, options, result)
        self._report(using, len(positions), options, result)

    def _selection(self, options: Mapping[str, Any]) -> Selection:
        selection = selected(options)
        if selection.ids or selection.states:
            # By id, a message in another state is reported and not passed over in silence.
            return selection
        return selected({**options, "state": self.states})

    def _show_impact(self, using: str, positions: Sequence[int]) -> None:
        if not positions:
            self.stderr.write("No message matches.")
            return
        ends = load(using, [positions[0], positions[-1]])
        self.stderr.write(
            f"{len(positions):,} messages, created {as_json(ends[0].created_at)} to "
            f"{as_json(ends[-1].created_at)}; such as"
        )
        for row in load(using, positions[:_SAMPLES]):
            self.stderr.write(f"  {row.id}  {row.topic}  {state_of(row)}")

    def _run(
        self, using: str, positions: Sequence[int], options: Mapping[str, Any], result: Result
    ) -> None:
        stop = StopSignal()
        with stop.on_signals():
            for start in range(0, len(positions), BATCH):
                if stop.is_set():
                    result.stopped = f"Stopped after {start:,} of {len(positions):,} messages."
                    return
                batch = positions[start : start + BATCH]
                try:
                    one = self.change(using, batch, options)
                except _DATABASE_ERRORS as error:
                    try:
                        one = Result(failed=[(row.id, str(error)) for row in load(using, batch)])
                    except _DATABASE_ERRORS:
                        # It is gone. What was done before is committed, and is reported.
                        done = f"Stopped after {start:,} of {len(positions):,} messages"
                        result.stopped = f"{done}: {str(error).strip()}"
                        return
                result.changed += one.changed
                result.skipped += one.skipped
                result.failed += one.failed

    def _report(self, using: str, matched: int, options: Mapping[str, Any], result: Result) -> None:
        if options["json"]:
            self.answer(
                using,
                {
                    "matched": matched,
                    "changed": result.changed,
                    "skipped": _listed(result.skipped, "reason"),
                    "skipped_count": len(result.skipped),
                    "failed": _listed(result.failed, "error"),
                    "failed_count": len(result.failed),
                    "dry_run": options["dry_run"],
                    "actor": options["actor"],
                    "reason": options["reason"],
                },
            )
        elif not options["dry_run"]:
            self.stdout.write(self._summary(result))
        if result.stopped:
            raise CommandError(result.stopped, returncode=PARTIAL)
        if result.failed:
            message = f"{len(result.failed):,} failed, such as {result.failed[0][0]}: "
            raise CommandError(message + result.failed[0][1], returncode=PARTIAL)

    def _summary(self, result: Result) -> str:
        reasons = Counter(reason for _id, reason in result.skipped)
        why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        if len(reasons) == 1:
            why = next(iter(reasons))
        skipped = f", skipped {len(result.skipped):,} ({why})" if result.skipped else ""
        return f"{self.done} {result.changed:,}{skipped}"


def _missing(selection: Selection, using: str) -> list[tuple[uuid.UUID, str]]:
    if not selection.ids:
        return []
    rows = OutboxMessage.objects.using(using).filter(id__in=selection.ids)
    found = set(rows.values_list("id", flat=True))
    return [(id_, "no such message") for id_ in selection.ids if id_ not in found]


def _listed(entries: Sequence[tuple[uuid.UUID, str]], word: str) -> list[dict[str, str]]:
    return [{"id": str(id_), word: text} for id_, text in entries[:_LISTED]]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a user that has no name.
        return str(os.getuid())
