"""A server of our own: private directory, private ports on the loopback address, its own user."""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from tests.services.process import Proc
from tests.services.state import Record
from tests.services.table import Standing


class ServerError(Exception):
    """A server that should answer does not."""


def free_port() -> int:
    """A port below those that the kernel hands to outgoing connections.

    Inside that range a client may take the port of a server that is down for a moment, or even
    connect to itself while it tries to reach that server.
    """
    try:
        ceiling = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        ceiling = 32768
    choice = random.SystemRandom()
    for _ in range(100):
        port = choice.randrange(10_000, max(ceiling, 10_100))
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerError("no free port on 127.0.0.1")


class Server(ABC):
    """`start`, `stop`, `kill`, `start` again on the same data and ports, `remove`."""

    kind: ClassVar[str]
    variable: ClassVar[str]  # the environment variable that carries its address
    package: ClassVar[str | None] = None
    account: ClassVar[str | None] = None  # who runs it when we are root
    standing: ClassVar[Standing] = "real"
    remark: ClassVar[str] = ""  # for the truth table
    port_count: ClassVar[int] = 1
    patience: ClassVar[float] = 60
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, *, shared: bool = False) -> None:
        self.owner = None if shared else Proc.of(os.getpid())
        self.user = self._user()
        self.directory = Path(
            tempfile.mkdtemp(prefix=f"ob-{self.kind}-", dir=_temporary(self.user))
        )
        self._give(self.directory)
        self.ports = [free_port() for _ in range(self.port_count)]
        self.processes: list[Proc] = []
        self._children: list[subprocess.Popen[bytes]] = []

    @classmethod
    def found(cls, record: Record) -> Self:
        """The server that another process, maybe a dead one, has started."""
        self = cls.__new__(cls)
        self.owner, self.user = record.owner, cls._user()
        self.directory, self.ports = Path(record.directory), record.ports
        self.processes, self._children = record.processes, []
        return self

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """For a test that kills a server: one of its own, removed at the end.

        Not below pytest's `tmp_path`: the account that runs the server may not enter it.
        """
        cls.require()
        self = cls()
        try:
            self.start()
            yield self
        finally:
            self.remove()

    # What a kind of server says about itself.

    @classmethod
    @abstractmethod
    def require(cls) -> None:
        """Install what is missing, or raise Absent."""

    @classmethod
    @abstractmethod
    def version_of(cls, url: str) -> str:
        """Ask the server a real question; any exception means that it does not answer."""

    @property
    @abstractmethod
    def url(self) -> str: ...

    @property
    def version(self) -> str:
        return self.version_of(self.url)

    def ask(self) -> None:
        """Any exception means that it is not ready."""
        self.version_of(self.url)

    @property
    def environment(self) -> dict[str, str]:
        """How those who use it learn of it."""
        return {self.variable: self.url}

    @abstractmethod
    def launch(self) -> None:
        """Prepare the data on the first start, then `spawn` the processes."""

    # What is the same for all.

    def start(self) -> None:
        try:
            self.launch()
            self._until_it_answers()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """In order, as an administrator would; one that does not listen is killed."""
        for process in reversed(self.processes):
            process.send(self.stop_signal)
            process.wait(15)
        self.kill()

    def kill(self) -> None:
        """SIGKILL for every process of this server; its data stays."""
        for process in self.processes:
            process.kill_family()
        for child in self._children:
            if child.stdin:
                child.stdin.close()
            child.wait()
        self.processes, self._children = [], []
        self._record().forget()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def alive(self) -> bool:
        return self._record().alive

    def spawn(
        self,
        *command: str | Path,
        env: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        with self._log.open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests; servers are stopped after them
                **self._confinement(env),
            )
        self._children.append(child)
        self.processes.append(Proc.of(child.pid))
        self._record().write()

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        self._give(path)
        return path

    def run(self, *command: str | Path, env: Mapping[str, str] | None = None) -> str:
        """One command to its end, as the server's user; its output."""
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **self._confinement(env),
        )
        if done.returncode:
            raise ServerError(f"{Path(command[0]).name} failed:\n{done.stdout}")
        return done.stdout

    def _confinement(self, env: Mapping[str, str] | None) -> dict:
        # Nothing of our own environment: PGPORT or RABBITMQ_NODENAME would lead the server astray.
        clean = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
        }
        who = {}
        if self.user:
            who = {"user": self.user, "group": _group(self.user), "extra_groups": []}
        return {"env": clean | dict(env or {}), "cwd": self.directory, **who}

    def _give(self, path: Path) -> None:
        if self.user:
            shutil.chown(path, self.user, _group(self.user))

    def _until_it_answers(self) -> None:
        deadline = time.monotonic() + self.patience
        while True:
            try:
                self.ask()
            except Exception as error:
                if not self.alive:
                    raise ServerError(f"{self.kind} ended while starting\n{self.tail()}") from error
                if time.monotonic() > deadline:
                    text = f"{self.kind} does not answer after {self.patience:.0f} s: {error}"
                    raise ServerError(f"{text}\n{self.tail()}") from error
                time.sleep(0.05)
            else:
                return

    def tail(self, lines: int = 25) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join(["--- end of its log ---", *text.splitlines()[-lines:]])

    @property
    def _log(self) -> Path:
        return self.directory / "log"

    def _record(self) -> Record:
        return Record(self.kind, str(self.directory), self.ports, self.processes, self.owner)

    @classmethod
    def _user(cls) -> str | None:
        if cls.account is None or os.geteuid() != 0:
            return None
        try:
            return pwd.getpwnam(cls.account).pw_name
        except KeyError:  # installed without Debian's package
            return "nobody"


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid  # Debian's nobody is in nogroup


def _temporary(user: str | None) -> str:
    """Where another user may go too: TMPDIR of root may lie in a closed directory."""
    default = Path(tempfile.gettempdir())
    is_open = all(folder.stat().st_mode & 0o001 for folder in [default, *default.parents])
    return str(default) if user is None or is_open else "/tmp"
