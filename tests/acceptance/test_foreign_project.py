"""A project made by `startproject` in a fresh environment, with what the README says."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import delete_queues
from tests.acceptance.project import wait_for
from tests.outbox_support import ROOT
from tests.packaging.build import build
from tests.services import fleet
from tests.services.kafka import create_topics

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

MODELS = """
from django.db import models

class Order(models.Model):
    customer_id = models.IntegerField()

class Stock(models.Model):
    order = models.IntegerField()

    @classmethod
    def reserve(cls, order):
        cls.objects.create(order=order)
"""


def readme(title: str) -> str:
    """The part of the README's code that begins with this comment."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    # A part ends where the next comment stands alone on a line, or with its block.
    parts = [part for block in blocks for part in re.split(r"\n(?=# )", block)]
    (found,) = [part for part in parts if part.startswith(f"# {title}")]
    return found + "\n"


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The interpreter of an environment that has our wheel with all its extras and nothing else."""
    folder = tmp_path_factory.mktemp("foreign")
    wheel = build(folder / "dist")
    venv.create(folder / "env", with_pip=True)
    interpreter = folder / "env" / "bin" / "python"
    install = [interpreter, "-m", "pip", "install", "--quiet", f"{wheel}[all]"]
    subprocess.run([*install, "--constraint", ROOT / "requirements.txt"], check=True)
    return interpreter


class Foreign:
    """The project, driven from outside."""

    def __init__(self, folder: Path, python: Path, log: Path, **env: str) -> None:
        self.folder, self.python, self.log = folder, python, log
        ours = ("PYTHONPATH", "DJANGO_SETTINGS_MODULE", "DATABASE_URL", "RABBITMQ_URL")
        self.env = {name: value for name, value in os.environ.items() if name not in ours} | env
        self.processes: list[subprocess.Popen[str]] = []

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [self.python, *command],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def manage(self, *arguments: str) -> str:
        return self.run("manage.py", *arguments)

    def start(self, *command: str) -> subprocess.Popen[str]:
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [self.python, *command],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def start_consumer(self) -> subprocess.Popen[str]:
        consume = ("inbox_consume", "--group", "warehouse", "--max-messages", "1")
        process = self.start("manage.py", *consume)
        self.wait_for("inbox_consume ready")
        return process

    def wait_for(self, words: str) -> None:
        wait_for(lambda: words in self.log.read_text(), f"{words!r} in {self.log}")

    def append(self, name: str, text: str) -> None:
        with (self.folder / name).open("a") as file:
            file.write(text)

    def place_order(self) -> None:
        """What the README shows, with a customer for its dots."""
        code = readme("publish").replace("create(...)", "create(customer_id=7)")
        self.manage("shell", "-c", f"from store.models import Order\n{code}")

    def reserved(self) -> list[int]:
        with sqlite3.connect(self.folder / "db.sqlite3") as connection:
            return [row[0] for row in connection.execute('SELECT "order" FROM store_stock')]


@pytest.fixture
def new_project(tmp_path, python) -> Iterator:
    projects: list[Foreign] = []

    def make(title: str, **env: str) -> Foreign:
        folder = tmp_path / "project"
        folder.mkdir()
        project = Foreign(folder, python, tmp_path / "log", **env)
        projects.append(project)
        project.run("-m", "django", "startproject", "shop", ".")
        project.manage("startapp", "store")
        (folder / "store" / "models.py").write_text(MODELS)
        (folder / "store" / "handlers.py").write_text(
            f"from store.models import Stock\n{readme('handle')}"
        )
        project.append("shop/settings.py", "\nINSTALLED_APPS += ['store']\n")
        project.append("shop/settings.py", readme("settings.py\n"))
        if title:
            project.append("shop/settings.py", readme(title))
        project.manage("makemigrations", "store")
        assert "no issues" in project.manage("check")
        project.manage("migrate")
        return project

    yield make
    for project in projects:
        for process in project.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def on_rabbitmq(new_project, rabbitmq_url):
    delete_queues(rabbitmq_url)
    yield new_project("", RABBITMQ_URL=rabbitmq_url)
    delete_queues(rabbitmq_url)


@pytest.fixture
def on_kafka(new_project):
    with fleet.running("kafka") as cluster:
        create_topics(cluster.url, ["orders.placed", "warehouse.dead"])
        # They replace the first settings, whose RABBITMQ_URL nobody reads then.
        yield new_project("settings.py, for Kafka", KAFKA_URL=f"kafka://{cluster.url}")


def takes_effect_once(project: Foreign) -> None:
    consumer = project.start_consumer()
    project.place_order()
    assert "1 published" in project.manage("outbox_relay", "--drain")
    assert consumer.wait(60) == 0, project.log.read_text()
    assert project.reserved() == [1]


def test_the_environment_has_our_wheel_and_not_our_sources(python, tmp_path):
    code = "import outbox, inbox; print(outbox.__file__, inbox.__file__)"
    said = subprocess.run(
        [python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert all("/site-packages/" in path for path in said.stdout.split())


@pytest.mark.rabbitmq
def test_it_works_on_rabbitmq(on_rabbitmq):
    takes_effect_once(on_rabbitmq)


@pytest.mark.kafka_any
def test_it_works_on_kafka(on_kafka):
    takes_effect_once(on_kafka)


@pytest.mark.rabbitmq
def test_a_celery_worker_relays(on_rabbitmq, rabbitmq_url):
    project = on_rabbitmq
    project.append("shop/settings.py", f"\nCELERY_BROKER_URL = {rabbitmq_url!r}\n")
    project.append("shop/settings.py", readme("settings.py, for Celery"))
    project.append("shop/celery.py", readme("shop/celery.py"))
    project.append("shop/__init__.py", readme("shop/__init__.py"))
    worker = project.start(
        "-m", "celery", "-A", "shop", "worker", "-B", "--concurrency", "1", "--loglevel", "INFO"
    )
    project.wait_for("ready.")
    consumer = project.start_consumer()
    project.place_order()
    assert consumer.wait(60) == 0, project.log.read_text()
    assert project.reserved() == [1]
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0


def test_the_first_lines_of_the_readme_are_all_that_is_set():
    names = set(re.findall(r"^([A-Z_]+)\b", readme("settings.py\n"), re.MULTILINE))
    assert names == {"INSTALLED_APPS", "OUTBOX", "INBOX"}
