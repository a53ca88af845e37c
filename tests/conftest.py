"""Tests that need a server which is not here are reported as NOT RUN, never as passed."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from outbox.runtime import hub
from tests.services import fleet, table
from tests.services.table import Row

# How long an example takes says what else the machine is doing, not whether the code is right.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def empty_hub() -> Iterator[None]:
    """The memory broker lives as long as its process; each test leaves it empty."""
    yield
    hub.get("default").clear()


@pytest.fixture(scope="session")
def database_url() -> str:
    return _address("DATABASE_URL", "postgres")


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    return _address("RABBITMQ_URL", "rabbitmq")


@pytest.fixture(scope="session")
def kafka_bootstrap() -> str:
    return _address("KAFKA_BOOTSTRAP_SERVERS", "kafka_any")


def _address(variable: str, marker: str) -> str:
    _demand(marker)
    return os.environ[variable]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in table.NEEDS:
        if item.get_closest_marker(marker):
            _demand(marker)


def _demand(marker: str) -> None:
    rows = _rows()
    row = rows[table.NEEDS[marker]]
    if row.serves(marker):
        return
    reason = f"NOT RUN [{marker}]: {table.TITLES[row.kind]} is {row.standing}"
    if row.kind in table.missing(rows.values(), os.environ.get("OUTBOX_TEST_REQUIRE", "")):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _rows() -> dict[str, Row]:
    """What the environment says; `make test` has put there what it started."""
    return {
        name: Row(name, fleet.given_standing(name) if os.environ.get(kind.variable) else "absent")
        for name, kind in fleet.ALL.items()
    }


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = (str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    found = (re.search(r"NOT RUN \[(\w+)\]", reason) for reason in skipped)
    not_run = Counter(match[1] for match in found if match)
    if path := os.environ.get("OUTBOX_TEST_REPORT"):
        # `make test` prints the table, with versions, after several runs.
        report = Path(path)
        earlier = json.loads(report.read_text()) if report.exists() else {}
        report.write_text(json.dumps(not_run + Counter(earlier)))
    else:
        terminalreporter.section("servers")
        terminalreporter.write_line(table.render(_rows().values(), not_run))
