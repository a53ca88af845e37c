"""All servers together: given by the environment, found running, or started."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from tests.services.base import Server, ServerError
from tests.services.kafka_mock import KafkaMock
from tests.services.packages import Absent
from tests.services.postgres import Postgres
from tests.services.rabbitmq import RabbitMQ
from tests.services.state import ROOT, records
from tests.services.table import Row, Standing

KINDS: dict[str, type[Server]] = {kind.kind: kind for kind in (Postgres, RabbitMQ, KafkaMock)}
ENV_FILE = ROOT / ".services.env"


@dataclass(frozen=True)
class Service:
    row: Row
    environment: dict[str, str]
    server: Server | None = None  # ours to stop


def given() -> list[Service]:
    """The servers that the environment names. One that does not answer is an error, not absent."""
    services = []
    for kind in KINDS.values():
        if not (url := os.environ.get(kind.variable)):
            continue
        try:
            version = kind.version_of(url)
        except Exception as error:
            text = f"{kind.variable} names a server that does not answer: {error}"
            raise ServerError(text) from error
        row = Row(kind.kind, given_standing(kind), version)
        services.append(Service(row, {kind.variable: url}))
    return services


def given_standing(kind: type[Server]) -> Standing:
    said = os.environ.get("KAFKA_KIND", "given") if kind is KafkaMock else "given"
    if said not in ("given", "mock", "compatible"):
        raise ServerError(f"KAFKA_KIND is {said!r}; it may be 'mock' or 'compatible'")
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
        if record.shared and record.kind not in services:
            server = KINDS[record.kind].found(record)
            services[record.kind] = _ours(server, stop=False)
    to_start = []
    for name, kind in KINDS.items():
        if name not in services:
            try:
                kind.require()
                to_start.append(kind)
            except Absent as reason:
                services[name] = Service(Row(name, "absent", remark=str(reason)), {})
    services |= {service.row.kind: service for service in _start(to_start, shared=shared)}
    return [services[name] for name in KINDS]


def _start(kinds: list[type[Server]], *, shared: bool) -> list[Service]:
    """All at once. If one fails, or Ctrl-C comes, none stays."""
    servers = [kind(shared=shared) for kind in kinds]
    try:
        with ThreadPoolExecutor(max_workers=len(KINDS)) as pool:
            list(pool.map(lambda server: server.start(), servers))
        return [_ours(server, stop=True) for server in servers]
    except BaseException:
        _remove(servers)
        raise


def _ours(server: Server, *, stop: bool) -> Service:
    try:
        version = server.version_of(server.url)
    except Exception as error:
        text = f"{server.kind} runs but does not answer; try `make services-stop`: {error}"
        raise ServerError(text) from error
    row, variables = Row(server.kind, "real", version), {server.variable: server.url}
    if isinstance(server, KafkaMock):
        row = Row(server.kind, "mock", remark="librdkafka mock cluster")
        variables["KAFKA_KIND"] = "mock"
    return Service(row, variables, server if stop else None)


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
