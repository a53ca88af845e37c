"""The test suite: PostgreSQL where DATABASE_URL names one, else SQLite; the memory broker.

A second database, "sqlite", is always a SQLite file, so that one run covers both vendors.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import dj_database_url

from settings.base import *
from settings.base import sqlite

# By the environment, so that the processes that a test starts find the same files.
if "OUTBOX_TEST_FOLDER" not in os.environ:
    os.environ["OUTBOX_TEST_FOLDER"] = tempfile.mkdtemp(prefix="outbox-tests-")
    atexit.register(shutil.rmtree, os.environ["OUTBOX_TEST_FOLDER"], ignore_errors=True)


def _database(url: str) -> dict[str, object]:
    if not url.startswith("sqlite:///"):
        return {**dj_database_url.parse(url)}
    # A file in the tests too: Django's default there is memory, which no second process sees.
    path = url.removeprefix("sqlite:///")
    return {**sqlite(path), "TEST": {"NAME": path}}


_folder = f"sqlite:///{os.environ['OUTBOX_TEST_FOLDER']}"
DATABASES = {
    "default": _database(os.environ.get("DATABASE_URL", f"{_folder}/default.sqlite3")),
    "sqlite": _database(os.environ.get("SQLITE_URL", f"{_folder}/sqlite.sqlite3")),
}
