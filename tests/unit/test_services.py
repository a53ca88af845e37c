"""The parts of tests/services that decide something, without a server."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import base, fleet, packages, table
from tests.services.chromium import Chromium
from tests.services.kafka import Kafka, distribution
from tests.services.kafka_mock import KafkaMock
from tests.services.process import Proc
from tests.services.state import ROOT, Record, records
from tests.services.table import Row


@pytest.fixture
def sleeper():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield child
    child.kill()
    child.wait()


def a_record(owner: Proc | None, *processes: Proc) -> Record:
    return Record("postgres", "/tmp/ob-postgres-x", [5432], list(processes), owner)


# The truth table


def test_table_names_what_was_not_run() -> None:
    rows = [
        Row("postgres", "real", "15.18"),
        Row("rabbitmq", "absent", remark="apt-get install x"),
        Row("kafka", "mock", remark="a mock cluster"),
    ]
    assert table.render(rows, {"rabbitmq": 1, "kafka_real": 6}).splitlines() == [
        "PostgreSQL   15.18      real",
        "RabbitMQ     -          absent     apt-get install x; 1 test marked rabbitmq NOT RUN",
        "Kafka        -          mock       a mock cluster; 6 tests marked kafka_real NOT RUN",
    ]


@pytest.mark.parametrize(
    ("standing", "any_kafka", "real_kafka"),
    [
        ("real", True, True),
        ("given", True, True),
        ("mock", True, False),
        ("compatible", True, False),
        ("absent", False, False),
    ],
)
def test_stand_in_serves_only_tests_that_allow_it(standing, any_kafka, real_kafka) -> None:
    row = Row("kafka", standing)
    assert (row.serves("kafka_any"), row.serves("kafka_real")) == (any_kafka, real_kafka)


def test_required_and_absent_mocked_or_misspelt_is_missing() -> None:
    rows = [Row("postgres", "given"), Row("rabbitmq", "absent"), Row("kafka", "mock")]
    wanted = "postgres, rabbitmq,kafka,postgresql,"
    assert table.missing(rows, wanted) == ["kafka", "postgresql", "rabbitmq"]
    assert table.missing(rows, "") == []


# Which Kafka


def test_mock_cluster_stands_in_where_kafka_cannot_be_had(monkeypatch) -> None:
    monkeypatch.delenv("KAFKA_KIND", raising=False)
    monkeypatch.setattr(Kafka, "require", lambda: None)
    assert fleet._best("kafka") == (Kafka, "")

    def absent():
        raise packages.Absent("apt-get install maven")

    monkeypatch.setattr(Kafka, "require", absent)
    assert fleet._best("kafka") == (KafkaMock, "apt-get install maven")
    monkeypatch.setattr(KafkaMock, "require", absent)
    assert fleet._best("kafka") == (None, "apt-get install maven; apt-get install maven")


def test_mock_cluster_may_be_asked_for(monkeypatch) -> None:
    monkeypatch.setenv("KAFKA_KIND", "mock")
    monkeypatch.setattr(Kafka, "require", lambda: pytest.fail("asked for the real one"))
    assert fleet._best("kafka") == (KafkaMock, "")


def test_a_given_kafka_says_what_it_is(monkeypatch) -> None:
    monkeypatch.setenv("KAFKA_KIND", "compatible")
    assert fleet.given_standing("kafka") == "compatible"
    assert fleet.given_standing("postgres") == "given"
    monkeypatch.setenv("KAFKA_KIND", "fake")
    with pytest.raises(base.ServerError, match="'fake'"):
        fleet.given_standing("kafka")


@pytest.mark.parametrize(("version", "fits"), [("17.0.15", True), ("1.8.0_42", False)])
def test_java_must_be_new_enough(monkeypatch, tmp_path, version, fits) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bool(distribution._java()) is fits


def test_docker_has_the_same_kafka() -> None:
    version = re.search(r"kafka_2.13</artifactId>\s*<version>(.+)<", distribution.POM.read_text())
    compose = (ROOT / "compose.yaml").read_text()
    assert f"image: apache/kafka:{version[1]}\n" in compose


# Chromium


def test_a_browser_has_a_version_and_a_path_for_the_tests(monkeypatch, tmp_path) -> None:
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\necho Chromium 156.0.8078.79 built on Debian\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    found = fleet._found("chromium", Chromium)
    assert found.row == Row("chromium", "real", "156.0.8078.79")
    assert found.environment == {"CHROMIUM": str(program)}
    assert found.server is None


def test_an_absent_browser_says_how_to_get_it(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("OUTBOX_TEST_INSTALL", "0")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = fleet._found("chromium", Chromium)
    assert found.row == Row(
        "chromium", "absent", remark="apt-get install chromium fonts-dejavu-core"
    )
    assert found.environment == {}


# Processes and their records


def test_process_is_alive_until_it_ends(sleeper) -> None:
    process = Proc.of(sleeper.pid)
    assert process.alive
    assert not process.wait(0)
    process.kill_family()
    assert process.wait(5)
    assert not process.alive  # although nobody has reaped it yet


def test_recycled_pid_is_another_process(sleeper) -> None:
    stranger = Proc(sleeper.pid, Proc.of(sleeper.pid).started + 1)
    stranger.kill_family()
    assert not stranger.alive
    assert stranger.wait(0)
    assert sleeper.poll() is None


def test_family_includes_children_with_a_session_of_their_own() -> None:
    code = "import subprocess, sys; subprocess.Popen(['sleep', '60'], start_new_session=True); "
    code += "print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        family = Proc.of(child.pid).family()
        assert len(family) == 2
        Proc.of(child.pid).kill_family()
    assert not any(member.alive for member in family)


def test_record_survives_its_file(tmp_path) -> None:
    record = a_record(Proc(1, 2), Proc(3, 4), Proc(5, 6))
    record.write(tmp_path)
    assert records(tmp_path) == [record]
    record.forget(tmp_path)
    assert records(tmp_path) == []


def test_record_of_a_dead_owner_is_orphaned() -> None:
    me = Proc.of(os.getpid())
    assert not a_record(me).orphaned
    assert not a_record(None).orphaned
    assert a_record(Proc(me.pid, me.started - 1)).orphaned


def test_record_is_alive_while_all_its_processes_are() -> None:
    me = Proc.of(os.getpid())
    assert a_record(None, me).alive
    assert not a_record(None, me, Proc(me.pid, 0)).alive
    assert not a_record(None).alive


# Ports and places


def test_free_port_is_below_those_of_outgoing_connections() -> None:
    floor = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    port = base.free_port()
    assert 10_000 <= port < floor
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))


def test_directory_is_where_another_user_may_go(monkeypatch, tmp_path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(closed))
    assert base._temporary("postgres") == "/tmp"
    assert base._temporary(None) == str(closed)


# The installation of packages


def test_no_service_starts_while_a_package_is_installed(monkeypatch, tmp_path) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(packages, "POLICY", policy)
    with packages._no_services():
        assert subprocess.run([policy], check=False).returncode == 101
    assert not policy.exists()


def test_policy_of_somebody_else_stays(monkeypatch, tmp_path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("theirs")
    monkeypatch.setattr(packages, "POLICY", policy)
    with packages._no_services():
        pass
    assert policy.read_text() == "theirs"


def test_forbidden_installation_names_the_package(monkeypatch) -> None:
    monkeypatch.setenv("OUTBOX_TEST_INSTALL", "0")
    with pytest.raises(packages.Absent, match="apt-get install postgresql maven"):
        packages.install("postgresql", "maven")
