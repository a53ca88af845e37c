"""The test suite: PostgreSQL where DATABASE_URL names one, else SQLite; the memory broker."""

from __future__ import annotations

import os

import dj_database_url

from settings.base import *  # noqa: F403
from settings.base import BASE_DIR, sqlite

DATABASES = {
    "default": dj_database_url.parse(os.environ["DATABASE_URL"])
    if "DATABASE_URL" in os.environ
    else {**sqlite(BASE_DIR / "test.sqlite3"), "TEST": {"NAME": str(BASE_DIR / "test.sqlite3")}},
}
