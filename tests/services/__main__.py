"""python -m tests.services start | stop | run -- COMMAND ...

Environment: DATABASE_URL, RABBITMQ_URL, KAFKA_BOOTSTRAP_SERVERS give a server (KAFKA_KIND says if
it is no real Kafka), CHROMIUM the path of a browser; OUTBOX_TEST_REQUIRE=postgres,rabbitmq,kafka,
chromium turns absent into failure; OUTBOX_TEST_INSTALL=0 forbids to install Debian packages.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.services import fleet, table
from tests.services.base import ServerError
from tests.services.table import Row


def start() -> int:
    rows = [service.row for service in fleet.start_shared()]
    print(table.render(rows, {}))
    return _refusal(rows)


def stop() -> int:
    print(f"stopped {fleet.stop_shared()} servers")
    return 0


def run(command: list[str]) -> int:
    # As Ctrl-C: leave through the `finally` clauses that stop the servers.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with fleet.private() as services, tempfile.TemporaryDirectory(prefix="ob-run-") as folder:
        rows = [service.row for service in services]
        report = Path(folder) / "not-run.json"  # tests/conftest.py writes it
        variables = {**fleet.environment(services), "OUTBOX_TEST_REPORT": str(report)}
        try:
            return _refusal(rows) or _wait(subprocess.Popen(command, env=os.environ | variables))
        finally:
            not_run = json.loads(report.read_text()) if report.exists() else {}
            print(table.render(rows, not_run), flush=True)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """The command's exit code. The terminal sends it Ctrl-C as well; other signals we hand on."""
    signal.signal(signal.SIGINT, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: child.terminate())
    code = child.wait()
    return 128 - code if code < 0 else code


def _refusal(rows: list[Row]) -> int:
    if not (names := table.missing(rows, os.environ.get("OUTBOX_TEST_REQUIRE", ""))):
        return 0
    print(f"OUTBOX_TEST_REQUIRE wants what is not here: {', '.join(names)}", file=sys.stderr)
    return 1


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["start"]:
                return start()
            case ["stop"]:
                return stop()
            case ["run", "--", *command] if command:
                return run(command)
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
