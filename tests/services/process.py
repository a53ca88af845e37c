"""A process that somebody else may have started, told apart from whoever gets its number later.

Numbers are recycled. A pid read from a file is therefore kept with the start time of its process,
and signals go through a pidfd: checked after it is open, it cannot come to mean another process.
"""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple


class _Stat(NamedTuple):
    state: str
    parent: int
    session: int
    started: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in brackets and may itself hold spaces and brackets.
    fields = text.rpartition(")")[2].split()
    return _Stat(fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


class Proc(NamedTuple):
    pid: int
    started: int  # clock ticks between boot and the start of the process

    @classmethod
    def of(cls, pid: int) -> "Proc":
        stat = _stat(pid)
        if stat is None:
            raise ProcessLookupError(pid)
        return cls(pid, stat.started)

    @property
    def alive(self) -> bool:
        stat = _stat(self.pid)
        return stat is not None and stat.started == self.started and stat.state not in "ZX"

    @contextmanager
    def _handle(self) -> Iterator[int | None]:
        """A pidfd of exactly this process, or None when it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            yield handle if self.alive else None
        finally:
            os.close(handle)

    def send(self, number: signal.Signals) -> None:
        with self._handle() as handle:
            if handle is not None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)

    def wait(self, seconds: float) -> bool:
        """Whether it ended in time; needs no parenthood."""
        with self._handle() as handle:
            if handle is None:
                return True
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            return bool(poll.poll(seconds * 1000))

    def family(self) -> list["Proc"]:
        """Itself, its session, all descendants: a PostgreSQL backend has a session of its own."""
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        stats = {pid: stat for pid in pids if (stat := _stat(pid)) is not None}
        members = {self.pid} | {pid for pid, stat in stats.items() if stat.session == self.pid}
        while more := {p for p, stat in stats.items() if stat.parent in members} - members:
            members |= more
        return [Proc(pid, stats[pid].started) for pid in members if pid in stats]

    def kill_family(self) -> None:
        """SIGKILL for all of them at once, as when the machine loses power."""
        if not self.alive:
            return
        self.send(signal.SIGSTOP)  # stopped, it has no more children that we would miss
        family = self.family()
        for member in family:
            member.send(signal.SIGKILL)
        for member in family:
            member.wait(10)
