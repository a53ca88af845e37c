"""The shop as a black box: its commands as processes, its tables as the only witness."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from demo_app.demo.processes import Process, manage, stop_all

GROUPS = {"warehouse": "demo_app_shipment", "billing": "demo_app_bill", "mail": "demo_app_mail"}
PATIENCE = 60.0


def wait_for(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {patience:.0f} s"
        time.sleep(0.02)


class Project:
    """One database, one broker, any number of processes."""

    def __init__(self, folder: Path, database_url: str, env: dict[str, str]) -> None:
        self.folder = folder
        self.database_url = database_url
        self.env = {
            "DJANGO_SETTINGS_MODULE": "tests.acceptance.settings",
            "DATABASE_URL": database_url,
            "CELERY_BROKER_URL": "filesystem://localhost",
            **env,
        }
        self.processes: list[Process] = []

    # Running things.

    def manage(self, *arguments: str, code: int = 0) -> str:
        """One command to its end; its output."""
        done = subprocess.run(
            manage(*arguments),
            env={**os.environ, **self.env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stderr[-3000:]}"
        return done.stdout

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        """A piece of code in the project, as a process of its own."""
        return subprocess.run(
            [sys.executable, "-c", f"import django\ndjango.setup()\n{code}"],
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, name: str, *arguments: str) -> Process:
        return self._start(name, manage(*arguments))

    def start_consumers(self) -> dict[str, Process]:
        """One process a group, once its queues are there: before that nothing is routed."""
        consumers = {
            group: self.start(f"inbox-{group}", "inbox_consume", "--group", group)
            for group in GROUPS
        }
        for process in consumers.values():
            wait_for(lambda p=process: "ready" in p.log.read_text(), f"{process.name} ready")
        return consumers

    def start_worker(self, name: str = "worker") -> Process:
        """A Celery worker with beat; its broker is a folder, so that the other one may die."""
        command = [sys.executable, "-m", "celery", "-A", "demo_app", "worker", "--beat"]
        options = [
            "--scheduler",
            "celery.beat:Scheduler",
            "--concurrency",
            "1",
            "--loglevel",
            "INFO",
        ]
        return self._start(name, [*command, *options])

    def stop(self) -> None:
        stop_all(self.processes)

    def _start(self, name: str, command: list[str]) -> Process:
        process = Process(name, command, self.env, self.folder)
        process.start()
        self.processes.append(process)
        return process

    # Asking the database.

    def rows(self, sql: str) -> list[tuple]:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            return connection.execute(sql).fetchall()

    def one(self, sql: str) -> object:
        return self.rows(sql)[0][0]

    def orders(self) -> set[str]:
        return {invoice for (invoice,) in self.rows("SELECT invoice FROM demo_app_order")}

    def settled(self) -> bool:
        if self.one("SELECT count(*) FROM outbox_todo"):
            return False
        orders = self.one("SELECT count(*) FROM demo_app_order")
        return all(self.one(f"SELECT count(*) FROM {t}") >= orders for t in GROUPS.values())

    def wait_settled(self) -> None:
        try:
            wait_for(self.settled, "everything sent and handled")
        except AssertionError as error:
            tables = {"unsent": "outbox_todo", "orders": "demo_app_order", **GROUPS}
            counts = {n: self.one(f"SELECT count(*) FROM {t}") for n, t in tables.items()}
            raise AssertionError(f"{error}; {counts}") from None

    def assert_each_effect_once(self) -> None:
        """Every order took effect in every group, once; nothing else did."""
        orders = self.orders()
        assert self.one("SELECT count(*) FROM outbox_message") == len(orders)
        for group, table in GROUPS.items():
            effects = [invoice for (invoice,) in self.rows(f"SELECT invoice FROM {table}")]
            assert sorted(effects) == sorted(orders), (
                f"{group}: lost {len(orders - set(effects))}, "
                f"phantom {len(set(effects) - orders)}, "
                f"twice {len(effects) - len(set(effects))}"
            )
