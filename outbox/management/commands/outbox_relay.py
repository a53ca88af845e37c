"""Hand messages over to the brokers."""

from __future__ import annotations

import functools
import json
import threading
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import connections, router

from outbox.conf import get_settings
from outbox.models import OutboxMessage
from outbox.relay import DrainReport, Relay
from outbox.runtime.shutdown import StopSignal
from outbox.runtime.threads import run_all

_BROKER_UNREACHABLE: Final = 6
_LEASE_LOST: Final = 75


class Command(BaseCommand):
    """One thread a broker, each with its own connections."""

    help = "Hand messages over to the brokers, for ever or until nothing is due."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which brokers, and for how long."""
        parser.add_argument(
            "--broker", action="append", metavar="ALIAS", help="only this broker (repeatable)"
        )
        parser.add_argument("--database", choices=tuple(connections), help="database of the outbox")
        until = parser.add_mutually_exclusive_group()
        until.add_argument("--once", action="store_true", help="one round, then exit")
        until.add_argument("--drain", action="store_true", help="exit once nothing is due")
        parser.add_argument(
            "--json-lines", action="store_true", help="reports as one JSON object a line"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run one relay a broker until told to stop."""
        aliases = options["broker"] or list(get_settings().brokers)
        if unknown := sorted(set(aliases) - set(get_settings().brokers)):
            message = f"Not in OUTBOX['BROKERS']: {', '.join(unknown)}."
            raise CommandError(message, returncode=2)
        using = options["database"] or router.db_for_write(OutboxMessage)
        stop = StopSignal()
        reports = {alias: DrainReport() for alias in aliases}
        loop = _once if options["once"] else _drain if options["drain"] else _for_ever
        loops = [functools.partial(loop, alias, using, stop, reports[alias]) for alias in aliases]
        with stop.on_signals():
            self._say("ready", DrainReport(), as_json=options["json_lines"])
            run_all(stop, loops)
        total = DrainReport()
        for report in reports.values():
            total.add(report)
        self._say("stopped", total, as_json=options["json_lines"])
        if options["once"] or options["drain"]:
            _raise_for(reports)

    def _say(self, event: str, report: DrainReport, *, as_json: bool) -> None:
        if as_json:
            line = json.dumps({"v": 1, "event": event, **report.as_dict()})
        elif event == "ready":
            line = "outbox_relay ready"
        else:
            line = (
                f"stopped: {report.published} published, {report.retried} to retry, "
                f"{report.dead} dead, {report.parked} parked, {report.released} released, "
                f"{report.fenced} fenced"
            )
        self.stdout.write(line)
        self.stdout.flush()


def _once(alias: str, using: str, stop: threading.Event, report: DrainReport) -> None:
    relay = Relay(alias, using)
    report.add(relay.drain(stop, once=True))
    relay.close()


def _drain(alias: str, using: str, stop: threading.Event, report: DrainReport) -> None:
    relay = Relay(alias, using)
    while not stop.is_set():
        report.add(relay.drain(stop))
        # What another relay holds, or held when it died, is waited for: at most a lease.
        if report.outage or not relay.waiting():
            break
        stop.wait(get_settings().poll[0].total_seconds())
    relay.close()


def _for_ever(alias: str, using: str, stop: threading.Event, report: DrainReport) -> None:
    Relay(alias, using).run(stop, report)


def _raise_for(reports: dict[str, DrainReport]) -> None:
    for alias, report in reports.items():
        if report.outage:
            message = f"Broker {alias!r}: {report.outage}"
            raise CommandError(message, returncode=_BROKER_UNREACHABLE)
        if report.fenced:
            message = f"Broker {alias!r}: {report.fenced} pages passed to another relay."
            raise CommandError(message, returncode=_LEASE_LOST)
