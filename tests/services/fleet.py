"""All servers together: given by the environment, found running, or started."""

import os
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests.services.base import Server, ServerError
from tests.services.chromium import Chromium
from tests.services.kafka import Kafka
from tests.services.kafka_mock import KafkaMock
from tests.services.packages import Absent
from tests.services.postgres import Postgres
from tests.services.rabbitmq import RabbitMQ
from tests.services.state import ROOT, records
from tests.services.table import Row, Standing

# What a service may be served by, the best first. The names are those in OUTBOX_TEST_REQUIRE.
SERVICES: dict[str, list[type[Server]]] = {
    "postgres": [Postgres],
    "rabbitmq": [RabbitMQ],
    "kafka": [Kafka, KafkaMock],
}
PROGRAMS = {"chromium": Chromium}
ALL = {name: kinds[0] for name, kinds in SERVICES.items()} | PROGRAMS
"""Everything in the truth table, in its order; what is given is taken for the best kind."""
KINDS = {kind.kind: kind for kinds in SERVICES.values() for kind in kinds}
SERVICE_OF = {kind.kind: name for name, kinds in SERVICES.items() for kind in kinds}
ENV_FILE = ROOT / ".services.env"


@dataclass(frozen=True)
class Service:
    row: Row
    environment: dict[str, str]
    server: Server | None = None  # ours to stop


def given() -> list[Service]:
    """The servers that the environment names. One that does not answer is an error, not absent."""
    services = []
    for name, kind in ALL.items():
        if not (url := os.environ.get(kind.variable)):
            continue
        try:
            version = kind.version_of(url)
        except Exception as error:
            text = f"{kind.variable} names a server that does not answer: {error}"
            raise ServerError(text) from error
        variables = {kind.variable: url}
        if (standing := given_standing(name)) != "given":
            variables["KAFKA_KIND"] = standing
        services.append(Service(Row(name, standing, version), variables))
    return services


def given_standing(name: str) -> Standing:
    said = os.environ.get("KAFKA_KIND", "given") if name == "kafka" else "given"
    if said not in ("given", "real", "mock", "compatible"):
        raise ServerError(f"KAFKA_KIND is {said!r}; it may be 'real', 'mock' or 'compatible'")
    return said


def sweep() -> None:
    """Remove what a killed run has left: servers whose owner is gone, shared ones that ended."""
    for record in records():
        if record.orphaned or (record.shared and not record.alive):
            KINDS[record.kind].found(record).remove()


def gather(*, shared: bool) -> list[Service]:
    """One service a kind, in the order of the table: given, else already shared, else started."""
    sweep()
    services = {service.row.kind: service for service in given()}
    for record in records():
        if record.shared and (name := SERVICE_OF[record.kind]) not in services:
            server = KINDS[record.kind].found(record)
            services[name] = _ours(server, stop=False)
    to_start: dict[type[Server], str] = {}
    for name in SERVICES:
        if name not in services:
            kind, reason = _best(name)
            if kind:
                to_start[kind] = reason
            else:
                services[name] = Service(Row(name, "absent", remark=reason), {})
    for name, program in PROGRAMS.items():
        if name not in services:
            services[name] = _found(name, program)
    services |= {service.row.kind: service for service in _start(to_start, shared=shared)}
    return [services[name] for name in ALL]


def _found(name: str, program: type[Chromium]) -> Service:
    try:
        program.require()
    except Absent as reason:
        return Service(Row(name, "absent", remark=str(reason)), {})
    path = program.path()
    return Service(Row(name, "real", program.version_of(path)), {program.variable: path})


def _best(name: str) -> tuple[type[Server] | None, str]:
    """The best server that can be had, and why it is no better one."""
    reasons = []
    for kind in SERVICES[name]:
        if name == "kafka" and os.environ.get("KAFKA_KIND") == "mock" != kind.standing:
            continue
        try:
            kind.require()
        except Absent as reason:
            reasons.append(str(reason))
        else:
            return kind, "; ".join(reasons)
    return None, "; ".join(reasons)


def running(name: str) -> AbstractContextManager[Server]:
    """For a test that needs one of its own, whichever kind the others have."""
    kind, reason = _best(name)
    if not kind:
        raise Absent(reason)
    return kind.running()


def _start(kinds: Mapping[type[Server], str], *, shared: bool) -> list[Service]:
    """All at once. If one fails, or Ctrl-C comes, none stays."""
    servers = [kind(shared=shared) for kind in kinds]
    try:
        with ThreadPoolExecutor(max_workers=len(KINDS)) as pool:
            list(pool.map(lambda server: server.start(), servers))
        return [_ours(server, stop=True, why=kinds[type(server)]) for server in servers]
    except BaseException:
        _remove(servers)
        raise


def _ours(server: Server, *, stop: bool, why: str = "") -> Service:
    try:
        version = server.version
    except Exception as error:
        text = f"{server.kind} runs but does not answer; try `make services-stop`: {error}"
        raise ServerError(text) from error
    remark = "; ".join(filter(None, [server.remark, why]))
    row = Row(SERVICE_OF[server.kind], server.standing, version, remark)
    return Service(row, server.environment, server if stop else None)


def _remove(servers: list[Server]) -> None:
    # The last thing that the process does; an impatient second Ctrl-C must not cut it short.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with ThreadPoolExecutor(max_workers=len(KINDS)) as pool:
        list(pool.map(lambda server: server.remove(), servers))


def environment(services: list[Service]) -> dict[str, str]:
    return {name: value for s in services for name, value in s.environment.items()}


def start_shared() -> list[Service]:
    services = gather(shared=True)
    lines = [f"{name}={value}\n" for name, value in environment(services).items()]
    ENV_FILE.write_text("".join(lines))
    return services


def stop_shared() -> int:
    sweep()
    servers = [KINDS[record.kind].found(record) for record in records() if record.shared]
    _remove(servers)
    ENV_FILE.unlink(missing_ok=True)
    return len(servers)


@contextmanager
def private() -> Iterator[list[Service]]:
    """For one run: shared servers if there are any, else our own, which end with it."""
    services = gather(shared=False)
    try:
        yield services
    finally:
        _remove([service.server for service in services if service.server])
        sweep()  # what a killed test has left
