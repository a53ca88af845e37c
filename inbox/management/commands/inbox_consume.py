"""Consume messages for one or more groups."""

from __future__ import annotations

import functools
import json
import threading
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from inbox import registry
from inbox.exceptions import ConsumerUnavailable, HandlerNotFound, InboxError
from inbox.worker import Mode, Worker, WorkerReport
from outbox.runtime.shutdown import StopSignal
from outbox.runtime.threads import run_all

_USAGE: Final = 2
_BROKER_UNREACHABLE: Final = 6


class Command(BaseCommand):
    """One thread a group, each with connections of its own; SIGTERM and SIGINT stop cleanly."""

    help = "Consume messages for all groups that have handlers, or for those named, until stopped."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which groups, and for how long."""
        parser.add_argument(
            "--group", action="append", metavar="NAME", help="only this group (repeatable)"
        )
        until = parser.add_mutually_exclusive_group()
        until.add_argument("--once", action="store_true", help="one round, then exit")
        until.add_argument(
            "--drain", action="store_true", help="exit once nothing comes and nothing is due"
        )
        parser.add_argument(
            "--max-messages", type=int, metavar="N", help="exit after N arrivals in each group"
        )
        parser.add_argument(
            "--json-lines", action="store_true", help="reports as one JSON object a line"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run one worker a group until told to stop."""
        groups = list(dict.fromkeys(options["group"] or registry.groups(by_celery=False)))
        if not groups:
            message = (
                "No handler of a broker's deliveries is registered (an inbox_task is fed by "
                "Celery): write one in the 'handlers' module of an app."
            )
            raise CommandError(message, returncode=_USAGE)
        self._as_json, self._speak = bool(options["json_lines"]), threading.Lock()
        self._unconnected = set(groups)
        mode: Mode = "once" if options["once"] else "drain" if options["drain"] else "forever"
        stop = StopSignal()
        with stop.on_signals():
            self._consume(groups, stop, mode, options["max_messages"])

    def _consume(
        self, groups: list[str], stop: threading.Event, mode: Mode, max_messages: int | None
    ) -> None:
        try:
            workers = [self._worker(group) for group in groups]
            run_all(
                stop,
                [functools.partial(_run, worker, stop, mode, max_messages) for worker in workers],
            )
        except HandlerNotFound as error:
            raise CommandError(str(error), returncode=_USAGE) from error
        except ConsumerUnavailable as error:
            raise CommandError(str(error), returncode=_BROKER_UNREACHABLE) from error
        except (ImproperlyConfigured, InboxError) as error:
            raise CommandError(str(error), returncode=1) from error
        total = WorkerReport()
        for worker in workers:
            total.add(worker.total)
        total.seconds = max(worker.total.seconds for worker in workers)
        self._say("stopped", total)

    def _worker(self, group: str) -> Worker:
        return Worker(
            group,
            on_ready=functools.partial(self._ready, group),
            on_report=functools.partial(self._say, "report", group=group),
        )

    def _ready(self, group: str) -> None:
        """Say so once every group has been connected: from then on nothing is unroutable."""
        with self._speak:
            was_waiting, self._unconnected = self._unconnected, self._unconnected - {group}
        if was_waiting and not self._unconnected:
            self._say("ready")

    def _say(self, event: str, report: WorkerReport | None = None, group: str = "") -> None:
        figures = asdict(report) if report else {}
        if self._as_json:
            of_group = {"group": group} if group else {}
            line = json.dumps({"v": 1, "event": event, **of_group, **figures})
        elif report is None:
            line = f"inbox_consume {event}"
        else:
            seconds = figures.pop("seconds")
            counts = ", ".join(f"{name} {count}" for name, count in figures.items() if count)
            line = f"{group or event}: {counts or 'nothing'} in {seconds:.1f} s"
        with self._speak:
            self.stdout.write(line)
            self.stdout.flush()


def _run(worker: Worker, stop: threading.Event, mode: Mode, max_messages: int | None) -> None:
    try:
        worker.run(stop, mode, max_messages)
    finally:
        # This thread's own: nobody else would close them.
        connections.close_all()
