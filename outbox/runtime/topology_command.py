"""What ``outbox_topology`` and ``inbox_topology`` share: options, answer, exit codes."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser

from outbox.runtime.commands import DRIFT, OperatorCommand
from outbox.runtime.topology import Shape, State, TopologyObject

Found = Iterable[tuple[str, TopologyObject]]
"""Broker's alias, object."""


class TopologyCommand(OperatorCommand):
    """Lists the objects; subclasses ask their drivers in `survey`."""

    def add_arguments(self, parser: CommandParser) -> None:
        """What to do with what is missing; no database is asked."""
        parser.add_argument("--json", action="store_true", help="one JSON document")
        parser.add_argument(
            "--broker", action="append", metavar="ALIAS", help="only this broker (repeatable)"
        )
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--declare", action="store_true", help="create what is missing")
        what.add_argument(
            "--diff", action="store_true", help="only what is not as it should be; 5 if any is"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="with --declare: say what it would create"
        )
        parser.add_argument(
            "--partitions",
            type=_number,
            metavar="N",
            help="of Kafka topics (default: the broker's)",
        )
        parser.add_argument(
            "--replication-factor",
            type=_number,
            metavar="N",
            help="of Kafka topics (default: the broker's)",
        )

    def survey(self, options: dict[str, Any], shape: Shape, *, declare: bool) -> Found:
        """Ask the brokers; raise `CommandError` with the exit code of what stands in the way."""
        raise NotImplementedError

    def handle(self, *_args: Any, **options: Any) -> None:
        """List, and declare when asked to."""
        shape = Shape(options["partitions"], options["replication_factor"])
        declare = options["declare"] and not options["dry_run"]
        found: dict[tuple[str, str, str], TopologyObject] = {}
        for alias, each in self.survey(options, shape, declare=declare):
            # Groups share an exchange: the first one has declared it.
            found.setdefault((alias, each.kind, each.name), each)
        drifted = {place: each for place, each in found.items() if each.has_drifted}
        self._write(drifted if options["diff"] else found, options)
        if drifted and (options["diff"] or declare):
            message = f"{len(drifted)} of {len(found)} are not as the settings ask for."
            raise CommandError(message, returncode=DRIFT)

    def _write(
        self, found: dict[tuple[str, str, str], TopologyObject], options: dict[str, Any]
    ) -> None:
        rows = []
        for (alias, _kind, _name), each in found.items():
            row = {"broker": alias, **asdict(each)}
            if options["declare"] and options["dry_run"] and each.state is State.MISSING:
                row["detail"] = "would be declared"
            rows.append(row)
        if options["json"]:
            self.answer(None, {"objects": rows})
        elif rows:
            self.table(list(rows[0]), [list(row.values()) for row in rows])
        else:
            self.stdout.write("Nothing differs." if options["diff"] else "Nothing to declare.")


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)
