"""The relay of the demonstration: one process starts it, another may kill it."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from tests.services.process import Proc


@dataclass(frozen=True, slots=True)
class Standing:
    """The relay's process, told apart from whoever gets its number later."""

    pid: int
    started: int
    """Clock ticks after the boot."""
    since: dt.datetime

    @property
    def alive(self) -> bool:
        """Whether it is there."""
        return Proc(self.pid, self.started).alive

    def kill(self) -> bool:
        """SIGKILL for it and its children; False if it was gone already."""
        if not self.alive:
            return False
        Proc(self.pid, self.started).kill_family()
        return True


def note(pid: int) -> None:
    """Write down which process the relay is now."""
    # Where the kernel does not tell a process's start (not Linux), nobody else may kill it.
    with contextlib.suppress(ProcessLookupError):
        process = Proc.of(pid)
        since = dt.datetime.now(dt.UTC).isoformat()
        fresh = _file().with_suffix(".new")
        fresh.write_text(json.dumps({**process._asdict(), "since": since}))
        fresh.replace(_file())


def standing() -> Standing | None:
    """Which process the relay is; None where nobody has noted it."""
    if not hasattr(settings, "DEMO_DIR"):
        return None
    try:
        noted = json.loads(_file().read_text())
    except FileNotFoundError:
        return None
    since = dt.datetime.fromisoformat(noted["since"])
    return Standing(noted["pid"], noted["started"], since)


def _file() -> Path:
    return Path(settings.DEMO_DIR) / "relay.json"
