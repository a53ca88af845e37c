"""The test suite: PostgreSQL where DATABASE_URL names one, else SQLite; the memory broker.

A second database, "sqlite", is always a SQLite file, so that one run covers both vendors.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import dj_database_url

from settings.base import *
from settings.base import sqlite

# By the environment, so that the processes that a test starts find the same files; outside of the
# checkout, and removed with the test databases.
_files = os.environ.setdefault(
    "OUTBOX_TEST_FILES", str(Path(tempfile.gettempdir()) / f"outbox-tests-{os.getpid()}")
)


def _database(url: str) -> dict[str, object]:
    if not url.startswith("sqlite:///"):
        return {**dj_database_url.parse(url)}
    # A file in the tests too: Django's default there is memory, which no second process sees.
    path = url.removeprefix("sqlite:///")
    return {**sqlite(path), "TEST": {"NAME": path}}


DATABASES = {
    "default": _database(os.environ.get("DATABASE_URL", f"sqlite:///{_files}-default")),
    "sqlite": _database(os.environ.get("SQLITE_URL", f"sqlite:///{_files}-sqlite")),
}

# Slow ones protect passwords; there are none.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
