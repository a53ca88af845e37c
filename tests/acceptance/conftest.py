from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest
from kombu import Connection

from demo_app.orders import CANCELLED, PLACED
from tests.acceptance.project import GROUPS, Project
from tests.services import fleet
from tests.services.kafka import create_topics


@contextmanager
def database(server_url: str) -> Iterator[str]:
    """A fresh database on this server."""
    name = f"acceptance_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield f"{server_url.rpartition('/')[0]}/{name}"
    finally:
        # A server that a test has killed for good takes its databases with it.
        with (
            suppress(psycopg.OperationalError),
            psycopg.connect(server_url, autocommit=True) as connection,
        ):
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def delete_queues(url: str) -> None:
    """Forget what an earlier test has left on a shared server."""
    with Connection(url) as connection:
        channel = connection.channel()
        for group in GROUPS:
            for queue in ("orders.placed", "orders.cancelled", "dead"):
                channel.queue_delete(f"{group}.{queue}")


@pytest.fixture
def new_project(tmp_path, monkeypatch):
    """Make a project: migrated, its processes stopped at the end."""
    projects: list[Project] = []

    def make(database_url: str, **env: str) -> Project:
        for folder in ("celery", "celery-control", "logs"):
            (tmp_path / folder).mkdir(exist_ok=True)
        env |= {"CELERY_FOLDER": str(tmp_path / "celery")}
        project = Project(tmp_path / "logs", database_url, env)
        projects.append(project)
        project.manage("migrate", "--verbosity", "0")
        return project

    yield make
    for project in projects:
        project.stop()


@pytest.fixture
def on_rabbitmq(new_project, database_url, rabbitmq_url) -> Iterator[Project]:
    delete_queues(rabbitmq_url)
    with database(database_url) as url:
        project = new_project(url, RABBITMQ_URL=rabbitmq_url)
        yield project
        project.stop()


@pytest.fixture
def on_kafka(new_project, database_url) -> Iterator[Project]:
    with fleet.running("kafka") as cluster, database(database_url) as url:
        create_topics(cluster.url, [PLACED, CANCELLED, *(f"{group}.dead" for group in GROUPS)])
        project = new_project(url, BROKER="kafka", KAFKA_BOOTSTRAP_SERVERS=cluster.url)
        yield project
        project.stop()
