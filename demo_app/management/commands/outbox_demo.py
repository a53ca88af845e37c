"""See it work: a shop, a relay that is killed, and the count afterwards."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from demo_app.demo import database
from demo_app.demo.figures import Figures
from demo_app.demo.show import DemoError, Show, prepare

_UNWATCHED: Final = 30.0
"""Seconds; nobody is there who would end it."""
_WATCHED: Final = 600.0
"""Seconds. The mock cluster keeps about 9,500 messages a partition: more orders would not fit."""


class Command(BaseCommand):
    """Separate processes on SQLite, Celery's filesystem transport and an embedded broker."""

    help = "Run a shop for a while, kill its relay on the way, and show that nothing was lost."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """How long, how loud, on which broker."""
        parser.add_argument(
            "--seconds",
            type=float,
            help="how long to place orders (default 30; on a terminal, with the page, 600). "
            "Ctrl-C ends the orders earlier; it counts all the same",
        )
        parser.add_argument("--rate", type=float, default=40, help="orders a second (default 40)")
        parser.add_argument(
            "--headless",
            action="store_true",
            help="plain lines, no redrawing, no web page: for scripts",
        )
        parser.add_argument(
            "--port", type=int, default=8000, help="of the web page (default 8000; 0: any)"
        )
        parser.add_argument(
            "--broker",
            metavar="URL",
            help="a real broker, amqp://… or kafka://…, instead of the embedded mock cluster",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run it; the exit code is 1 when a promise does not hold."""
        if not hasattr(settings, "DEMO_DIR"):
            raise CommandError("Run it by `make demo`, or with --settings=settings.demo.")
        # A SIGTERM ends the children too, as Ctrl-C does.
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
        prepare(settings.DEMO_DIR)
        database.make_ready()
        self._redraw = sys.stdout.isatty() and not options["headless"]
        port = None if options["headless"] else options["port"]
        show = Show(settings.DEMO_DIR, options["broker"], options["rate"], port, self)
        try:
            promises = show.run(options["seconds"] or (_WATCHED if self._redraw else _UNWATCHED))
        except DemoError as error:
            raise CommandError(str(error)) from error
        self.stdout.write("")
        for promise in promises:
            mark = self.style.SUCCESS("ok") if promise.holds else self.style.ERROR("BROKEN")
            self.stdout.write(f"{promise.text:<32}{promise.figure:>8,}  {mark}")
        if not all(promise.holds for promise in promises):
            raise CommandError(f"A promise does not hold; the logs are in {settings.DEMO_DIR}.")

    def say(self, text: str) -> None:
        """One event, on a line of its own."""
        if self._redraw:
            self.stdout.write("\r\x1b[K", ending="")
        self.stdout.write(f"* {text}")
        self.stdout.flush()

    def figures(self, seconds: float, now: Figures) -> None:
        """The live view: one line, redrawn on a terminal."""
        handled = "  ".join(f"{group} {done:,}" for group, done in now.handled.items())
        line = (
            f"{seconds:5.0f}s  orders {now.orders:,}  unsent {now.unsent:,}  "
            f"{handled}  duplicates dropped {now.duplicates:,}"
        )
        if self._redraw:
            self.stdout.write(f"\r\x1b[K{line}", ending="")
        else:
            self.stdout.write(line)
        self.stdout.flush()
