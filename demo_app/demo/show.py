"""Run the shop for a while, kill its relay on the way, and count."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from demo_app.demo.figures import Figures, Invariant, invariants, take
from demo_app.demo.processes import Process, manage, stop_all
from demo_app.models import EFFECTS
from demo_app.orders import CANCELLED, PLACED
from tests.services.kafka import create_topics

_KAFKA: Final = "kafka://"
_START_TIMEOUT: Final = 60.0
_SETTLE_TIMEOUT: Final = 60.0
_DOWNTIME: Final = 1.0
"""Seconds that the killed relay stays away."""


class DemoError(Exception):
    """The demonstration could not be run."""


class View(Protocol):
    """Where the demonstration says what happens."""

    def say(self, text: str) -> None:
        """One event."""

    def figures(self, seconds: float, now: Figures) -> None:
        """The state of things; called once a second."""


class Show:
    """The processes of the shop, and the script that they follow."""

    def __init__(self, folder: Path, broker: str | None, rate: float, view: View) -> None:
        """``broker``: an amqp:// or kafka:// URL; None for an embedded mock cluster."""
        self._view = view
        self._logs = folder / "logs"
        self._broker = broker
        self._rate = rate
        self._processes: list[Process] = []
        self._env = {"DJANGO_SETTINGS_MODULE": "settings.demo"}

    def run(self, seconds: float) -> list[Invariant]:
        """Place orders for so many seconds, kill the relay after a third, and check the promises.

        Raises `DemoError` with the end of a log when a process does not start or dies.
        """
        with self._stopping():
            relay, load = self._start()
            began = time.monotonic()
            kill_at, killed = seconds / 3, False
            while (elapsed := time.monotonic() - began) < seconds:
                if not killed and elapsed >= kill_at:
                    self._kill_and_restart(relay)
                    killed = True
                self._watch(elapsed)
            load.stop()
            self._view.say("no more orders; waiting for what is under way")
            self._settle(began)
        return invariants()

    def _start(self) -> tuple[Process, Process]:
        if self._broker is None:
            self._broker = self._start_mock_cluster()
        self._env["DEMO_BROKER_URL"] = self._broker
        if self._broker.startswith(_KAFKA):
            # Our publisher never makes a topic: a misspelt one would have one replica and no owner.
            dead = (f"{group}.dead" for group in EFFECTS)
            create_topics(self._broker.removeprefix(_KAFKA), [PLACED, CANCELLED, *dead])
        for group in EFFECTS:
            self._start_process(f"inbox-{group}", manage("inbox_consume", "--group", group))
        self._wait_for_consumers()
        relay = self._start_process("relay", _celery())
        load = self._start_process("load", manage("place_orders", "--rate", str(self._rate)))
        return relay, load

    def _start_mock_cluster(self) -> str:
        command = [sys.executable, "-m", "tests.services.kafka_mock_host"]
        process = Process("mock-cluster", command, {}, self._logs)
        self._processes.append(process)
        stdout = process.start(stdout=subprocess.PIPE)
        address = stdout.readline().strip() if stdout is not None else ""
        if not address:
            raise DemoError(_end_of(process))
        self._view.say(f"mock cluster (librdkafka's, not Kafka) at {address}")
        return f"{_KAFKA}{address}"

    def _start_process(self, name: str, command: list[str]) -> Process:
        process = Process(name, command, self._env, self._logs)
        process.start()
        self._processes.append(process)
        return process

    def _wait_for_consumers(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        waiting = [process for process in self._processes if process.name.startswith("inbox-")]
        while waiting:
            waiting = [p for p in waiting if "ready" not in p.log.read_text()]
            self._check_alive()
            if waiting and time.monotonic() > deadline:
                raise DemoError(_end_of(waiting[0]))
            time.sleep(0.1)
        self._view.say(f"consumers ready: {', '.join(EFFECTS)}")

    def _kill_and_restart(self, relay: Process) -> None:
        relay.kill()
        self._view.say("relay killed by SIGKILL")
        time.sleep(_DOWNTIME)
        relay.start()
        self._view.say("relay started again")

    def _watch(self, elapsed: float) -> None:
        self._check_alive()
        self._view.figures(elapsed, take())
        time.sleep(1)

    def _settle(self, began: float) -> None:
        deadline = time.monotonic() + _SETTLE_TIMEOUT
        while not take().settled and time.monotonic() < deadline:
            self._watch(time.monotonic() - began)
        self._view.figures(time.monotonic() - began, take())

    def _check_alive(self) -> None:
        for process in self._processes:
            if not process.running and process.name != "load":
                raise DemoError(_end_of(process))

    @contextlib.contextmanager
    def _stopping(self) -> Iterator[None]:
        try:
            yield
        finally:
            stop_all(self._processes)


def prepare(folder: Path) -> None:
    """Start from nothing: an earlier run's database and logs go."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("logs", "celery", "celery-control"):
        (folder / name).mkdir(parents=True)


def _celery() -> list[str]:
    # Beat inside the worker is fine: leases keep any number of drains apart. Its schedule is kept
    # in memory, because a file would be torn by the SIGKILL.
    worker = [sys.executable, "-m", "celery", "-A", "demo_app", "worker", "--concurrency", "1"]
    return [*worker, "--beat", "--scheduler", "celery.beat:Scheduler", "--loglevel", "INFO"]


def _end_of(process: Process) -> str:
    lines = process.log.read_text().splitlines()[-15:] if process.log.exists() else []
    return f"The process {process.name!r} did not run. The end of its log:\n" + "\n".join(lines)
