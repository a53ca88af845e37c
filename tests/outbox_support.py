"""What the tests of the outbox share: a publisher that does as it is told, and real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connections, transaction

from outbox.brokers.base import Address, Confirm, Publisher, Status
from outbox.exceptions import BrokerUnavailable
from outbox.testing.contracts.store_bench import (  # noqa: F401 - for the tests of the relay too
    expire_leases,
    make_due,
)
from outbox.wire import Message

ROOT = Path(__file__).resolve().parent.parent

VENDORS = ["default"]
"""Database aliases, one a vendor."""
if settings.DATABASES["default"]["ENGINE"] != settings.DATABASES["sqlite"]["ENGINE"]:
    VENDORS.append("sqlite")

LONG_AGO = timedelta(hours=1)

SILENT = object()
"""An answer that never comes."""


class ScriptedPublisher(Publisher):
    """Answers each submission as ``answer(message)`` says.

    That is a `Status`, `SILENT`, or an exception, which `submit` then raises.
    """

    def __init__(self, answer: Callable[[Message], object] = lambda _: Status.ACKED) -> None:
        super().__init__("default", "", {})
        self.answer = answer
        self.submitted: list[Message] = []
        self.on_this_connection: list[Message] = []
        self.addresses: list[Address] = []
        self.opened = 0
        self.is_open = False
        self.open_error: Exception | None = None
        self.confirms_error: Exception | None = None
        self.before_confirms: Callable[[], object] = lambda: None
        self.patience: float | None = None
        """Come back without an answer after this long, as on a heartbeat."""
        self._answers: deque[Confirm] = deque()

    def open(self) -> None:
        if self.open_error:
            raise self.open_error
        if not self.is_open:
            self.opened += 1
            self.on_this_connection = []
        self.is_open = True

    def close(self) -> None:
        self.is_open = False
        self._answers.clear()

    def submit(self, message: Message, address: Address) -> None:
        assert self.is_open, "submit() on a closed publisher"
        answer = self.answer(message)
        if isinstance(answer, Exception):
            raise answer
        self.submitted.append(message)
        self.on_this_connection.append(message)
        self.addresses.append(address)
        if isinstance(answer, Status):
            reason = "" if answer is Status.ACKED else f"scripted {answer.value}"
            self._answers.append(Confirm(message.id, answer, reason))

    def confirms(self, timeout: float) -> list[Confirm]:
        assert self.is_open, "confirms() on a closed publisher"
        if timeout > 0:
            self.before_confirms()
            if self.confirms_error:
                raise self.confirms_error
        if not self._answers and timeout > 0:
            time.sleep(timeout if self.patience is None else min(timeout, self.patience))
        answers = list(self._answers)
        self._answers.clear()
        return answers

    @property
    def topics(self) -> list[str]:
        return [message.topic for message in self.submitted]


class DownPublisher(Publisher):
    """A broker that is not there."""

    def open(self) -> None:
        raise BrokerUnavailable("connection refused")

    def close(self) -> None:
        pass


class SlowPublisher(Publisher):
    """Says on standard output what is handed over, and answers one submission at a time.

    OPTIONS: ``seconds`` to each answer; without it, none comes.
    """

    def __init__(self, alias: str, url: str, options: Mapping[str, Any]) -> None:
        super().__init__(alias, url, options)
        self._seconds = options.get("seconds")
        self._unanswered: deque[Message] = deque()

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def submit(self, message: Message, address: Address) -> None:
        print("submitted", message.id, flush=True)  # noqa: T201 - this is how the test sees it
        self._unanswered.append(message)

    def confirms(self, timeout: float) -> list[Confirm]:
        if not self._unanswered or self._seconds is None:
            time.sleep(timeout)
            return []
        time.sleep(min(timeout, self._seconds))
        return [Confirm(self._unanswered.popleft().id, Status.ACKED)]


class _Undo(Exception):  # noqa: N818 - as `raise _Undo`
    pass


@contextmanager
def rolled_back(using: str = "default") -> Iterator[None]:
    """A transaction that fails at its end."""
    with suppress(_Undo), transaction.atomic(using=using):
        yield
        raise _Undo


def environment(**more: str) -> dict[str, str]:
    """For a process that shall use this run's test databases."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "settings.test"}
    return env | {"DATABASE_URL": _url("default"), "SQLITE_URL": _url("sqlite")} | more


def _url(alias: str) -> str:
    database = connections[alias].settings_dict
    if connections[alias].vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    password = f":{database['PASSWORD']}" if database["PASSWORD"] else ""
    where = f"{database['HOST']}:{database['PORT']}/{database['NAME']}"
    return f"postgres://{database['USER']}{password}@{where}"


PRELUDE = "import django; django.setup()\n"


def start(code: str, **env: str) -> subprocess.Popen[str]:
    """A process of its own that runs this code after `django.setup`."""
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code],
        env=environment(**env),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], say: str | None = None) -> str:
    """What the process has written, once it has ended well."""
    out, err = process.communicate(say, timeout=60)
    assert process.returncode == 0, err
    return out
