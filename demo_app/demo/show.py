"""Run the shop for a while, kill its relay on the way, and count."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from demo_app.demo import relay
from demo_app.demo.database import USER
from demo_app.demo.figures import Figures, Invariant, invariants, take
from demo_app.demo.processes import Process, manage, stop_all
from demo_app.models import EFFECTS
from demo_app.orders import CANCELLED, PLACED
from tests.services.kafka import create_topics

_KAFKA: Final = "kafka://"
_MOCK: Final = "mock cluster (librdkafka's, not Kafka)"
_START_TIMEOUT: Final = 60.0
_SETTLE_TIMEOUT: Final = 60.0
_HOST: Final = "127.0.0.1"
_KILL_AT_LATEST: Final = 10.0
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

    def __init__(
        self, folder: Path, broker: str | None, rate: float, port: int | None, view: View
    ) -> None:
        """``broker``: an amqp:// or kafka:// URL; None for an embedded mock cluster.

        ``port``: of the web page, 0 for any that is free; None for no page.
        """
        self._view = view
        self._port = port
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
            load = self._start()
            began = time.monotonic()
            # Soon: visitors have the rest of the time, and a button of their own.
            kill_at, killed = min(seconds / 3, _KILL_AT_LATEST), False
            # Ctrl-C ends the orders, not the count.
            with contextlib.suppress(KeyboardInterrupt):
                while (elapsed := time.monotonic() - began) < seconds:
                    if not killed and elapsed >= kill_at:
                        self._relay.kill()
                        killed = True
                    self._watch(elapsed)
            load.stop()
            self._view.say("no more orders; waiting for what is under way")
            self._settle(began)
        return invariants()

    def _start(self) -> Process:
        if self._broker is None:
            self._broker = self._start_mock_cluster()
        self._env["DEMO_BROKER_URL"] = self._broker
        if self._broker.startswith(_KAFKA):
            # Our publisher never makes a topic: a misspelt one would have one replica and no owner.
            dead = (f"{group}.dead" for group in EFFECTS)
            create_topics(self._broker.removeprefix(_KAFKA), [PLACED, CANCELLED, *dead])
        for group in EFFECTS:
            self._start_process(f"inbox-{group}", manage("inbox_consume", "--group", group))
        web = None if self._port is None else self._start_web(self._port)
        self._wait_for_consumers()
        self._relay = self._start_process("relay", _celery())
        self._relay_started()
        if web is not None:
            self._wait_for_web(web)
        return self._start_process("load", manage("place_orders", "--rate", str(self._rate)))

    def _start_web(self, port: int) -> Process:
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind((_HOST, port))
            except OSError as error:
                raise DemoError(
                    f"Port {port} cannot be had ({error.strerror}): "
                    "choose another one, --port 0 for any, or --headless for no page."
                ) from error
            self._port = candidate.getsockname()[1]
        # --insecure: it serves the style sheet although DEBUG is off.
        options = ["--noreload", "--insecure", f"{_HOST}:{self._port}"]
        return self._start_process("web", manage("runserver", *options))

    def _wait_for_web(self, web: Process) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while not _answers(self._port or 0):
            if not web.running or time.monotonic() > deadline:
                raise DemoError(_end_of(web))
            time.sleep(0.1)
        self._view.say(f"shop: http://{_HOST}:{self._port}/  (admin: {USER} / {USER})")

    def _start_mock_cluster(self) -> str:
        command = [sys.executable, "-m", "tests.services.kafka_mock_host"]
        process = Process("mock-cluster", command, {}, self._logs)
        self._processes.append(process)
        stdout = process.start(stdout=subprocess.PIPE)
        address = stdout.readline().strip() if stdout is not None else ""
        if not address:
            raise DemoError(_end_of(process))
        self._env["DEMO_BROKER_NAME"] = _MOCK
        self._view.say(f"{_MOCK} at {address}")
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

    def _relay_started(self) -> None:
        if self._relay.pid is not None:
            relay.note(self._relay.pid)

    def _revive_relay(self) -> None:
        """Start it again if it was killed: by our own script, or by a visitor's button."""
        if self._relay.ended_by != signal.SIGKILL:
            return
        self._relay.kill()  # what a visitor has killed is not reaped yet
        self._view.say("relay killed by SIGKILL")
        time.sleep(_DOWNTIME)
        self._relay.start()
        self._relay_started()
        self._view.say("relay started again")

    def _watch(self, elapsed: float) -> None:
        self._revive_relay()
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
            ended = not process.running and process.name != "load"
            # A visitor may have killed the relay since we looked: it is started again in a second.
            by_visitor = process.name == "relay" and process.ended_by == signal.SIGKILL
            if ended and not by_visitor:
                raise DemoError(_end_of(process))

    @contextlib.contextmanager
    def _stopping(self) -> Iterator[None]:
        try:
            yield
        finally:
            stop_all(self._processes)


def prepare(folder: Path) -> None:
    """Start from nothing: an earlier run's database and logs go, and nothing else does."""
    for name in ("logs", "celery", "celery-control"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    for file in (*folder.glob("demo.sqlite3*"), folder / "relay.json"):
        file.unlink(missing_ok=True)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((_HOST, port), timeout=1):
            return True
    except OSError:
        return False


def _celery() -> list[str]:
    # Beat inside the worker is fine: leases keep any number of drains apart. Its schedule is kept
    # in memory, because a file would be torn by the SIGKILL.
    worker = [sys.executable, "-m", "celery", "-A", "demo_app", "worker", "--concurrency", "1"]
    return [*worker, "--beat", "--scheduler", "celery.beat:Scheduler", "--loglevel", "INFO"]


def _end_of(process: Process) -> str:
    lines = process.log.read_text().splitlines()[-15:] if process.log.exists() else []
    return f"The process {process.name!r} did not run. The end of its log:\n" + "\n".join(lines)
