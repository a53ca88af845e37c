"""Place the orders of a file."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from demo_app.models import Order
from demo_app.orders import place_order
from demo_app.retail import Contents, NotRetailError, read

_SHOWN = 20
_BAR = 30


class Command(BaseCommand):
    """Each order is a transaction of its own; orders that are there already are left alone."""

    help = "Place one order for each invoice of a file in the Online Retail format."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which file."""
        parser.add_argument("file", type=Path, metavar="FILE.csv", help="the file to read")
        parser.add_argument(
            "--dry-run", action="store_true", help="say what the file holds and place nothing"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Read, place, and say what was there."""
        contents = self._read(options["file"])
        for number, fault in contents.skipped[:_SHOWN]:
            self.stderr.write(f"line {number} skipped: {fault}")
        if len(contents.skipped) > _SHOWN:
            self.stderr.write(f"… and {len(contents.skipped) - _SHOWN} more lines skipped")
        present = set(Order.objects.values_list("invoice", flat=True))
        fresh = [i for i in contents.invoices.values() if i.number not in present]
        if not options["dry_run"]:
            for done, invoice in enumerate(fresh, start=1):
                place_order(invoice.draft())
                self._progress(done, len(fresh))
        self._summarise(contents, len(fresh), dry_run=options["dry_run"])

    def _read(self, path: Path) -> Contents:
        try:
            # Only descriptions ever hold bytes that are not UTF-8; they are for people.
            with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                return read(file)
        except OSError as error:
            raise CommandError(f"Cannot read {path}: {error.strerror}.") from error
        except NotRetailError as error:
            raise CommandError(f"{path} is not in the Online Retail format. {error}") from error

    def _progress(self, done: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        filled = _BAR * done // total
        end = "\n" if done == total else ""
        bar = f"\r[{'#' * filled}{'.' * (_BAR - filled)}] {done:,}/{total:,}{end}"
        self.stderr.write(bar, ending="")
        self.stderr.flush()

    def _summarise(self, contents: Contents, fresh: int, *, dry_run: bool) -> None:
        invoices = contents.invoices.values()
        cancellations = sum(invoice.cancels for invoice in invoices)
        anonymous = sum(not invoice.customer for invoice in invoices)
        verb = "to place" if dry_run else "placed"
        self.stdout.write(
            f"{contents.lines:,} lines, {len(contents.skipped):,} skipped; "
            f"{contents.free_lines:,} with a zero price, "
            f"{contents.adjustments:,} negative adjustments\n"
            f"{len(invoices):,} invoices: {len(invoices) - cancellations:,} orders, "
            f"{cancellations:,} cancellations; {anonymous:,} without a customer\n"
            f"{fresh:,} {verb}, {len(invoices) - fresh:,} were there already"
        )
