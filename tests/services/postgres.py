"""PostgreSQL from the Debian package; not its system cluster but one of our own."""

import re
import shutil
import signal
from pathlib import Path
from typing import ClassVar

from tests.services.base import Server
from tests.services.packages import install


class Postgres(Server):
    kind = "postgres"
    variable = "DATABASE_URL"
    package = "postgresql"
    account = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends sessions, then checkpoints

    OPTIONS: ClassVar[dict[str, str]] = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",  # TCP only: no socket path to become too long
        "max_connections": "200",
        "fsync": "on",  # tests kill this server and expect to find what it had confirmed
        "log_min_messages": "warning",
        "timezone": "UTC",
    }

    @classmethod
    def require(cls) -> None:
        if cls._programs() is None:
            install(cls.package)

    @classmethod
    def version_of(cls, url: str) -> str:
        import psycopg

        with psycopg.connect(url, connect_timeout=5) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        return str(row[0]).split()[0]

    @property
    def url(self) -> str:
        return f"postgres://outbox@127.0.0.1:{self.ports[0]}/outbox"

    def launch(self) -> None:
        programs, data = self._programs(), self.directory / "data"
        if not data.exists():
            # As user and database have one name, `initdb` is followed by one statement only.
            self.run(
                programs / "initdb", "--pgdata", data, "--username=outbox", "--auth=trust",
                "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync",
            )  # fmt: skip
            (self.directory / "sql").write_text("CREATE DATABASE outbox;\n")
            self.run("/bin/sh", "-c", f"{programs}/postgres --single -D data postgres < sql")
        options = [f"-c{name}={value}" for name, value in self.OPTIONS.items()]
        self.spawn(programs / "postgres", "-D", data, "-p", str(self.ports[0]), *options)

    @staticmethod
    def _programs() -> Path | None:
        """Debian keeps the server's programs off the PATH, one directory a version: the newest."""
        debian = Path("/usr/lib/postgresql").glob("*/bin/initdb")
        newest = max(debian, key=lambda path: float(re.sub(r"[^\d.]", "", str(path))), default=None)
        elsewhere = shutil.which("initdb")
        found = newest or (Path(elsewhere).resolve() if elsewhere else None)
        return found.parent if found else None
