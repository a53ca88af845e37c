"""The processes of the demonstration: separate ones, so that a SIGKILL is a SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

_GRACE: Final = 15.0


class Process:
    """A child in a process group of its own, its output in a file."""

    def __init__(self, name: str, command: list[str], env: dict[str, str], logs: Path) -> None:
        """Nothing runs before `start`."""
        self.name = name
        self.log = logs / f"{name}.log"
        self._command = command
        self._env = env
        self._popen: subprocess.Popen[str] | None = None

    def start(self, *, stdout: int | None = None) -> IO[str] | None:
        """Start it; ``stdout=subprocess.PIPE`` returns its output instead of writing it down."""
        with self.log.open("a") as log:
            self._popen = subprocess.Popen(  # noqa: S603 - our own command lines
                self._command,
                env={**os.environ, **self._env},
                # Held open, never written: a child that reads it learns of our end.
                stdin=subprocess.PIPE,
                stdout=stdout if stdout is not None else log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        return self._popen.stdout

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def pid(self) -> int | None:
        """Its number."""
        return self._popen.pid if self._popen is not None else None

    @property
    def ended_by(self) -> int | None:
        """The signal that ended it, if one did."""
        code = self._popen.poll() if self._popen is not None else None
        return -code if code is not None and code < 0 else None

    def kill(self) -> None:
        """SIGKILL, for it and all its children: no cleanup, no goodbye."""
        if self._popen is not None and self.running:
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._reap()

    def terminate(self) -> None:
        """SIGTERM, to it alone; does not wait."""
        if self._popen is not None and self.running:
            self._popen.terminate()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what is still there after the grace time."""
        self.terminate()
        if self._popen is not None:
            try:
                self._popen.wait(_GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(self._popen.pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        if self._popen is not None:
            with self._popen:
                pass  # closes the pipes and waits


def stop_all(processes: Sequence[Process]) -> None:
    """Stop all of them at once, the youngest first."""
    for process in reversed(processes):
        process.terminate()
    for process in reversed(processes):
        process.stop()


def manage(*arguments: str) -> list[str]:
    """The command line of a management command of this project."""
    return [sys.executable, "manage.py", *arguments]
