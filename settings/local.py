"""Embedded: SQLite and the memory broker, no server. The default of manage.py.

The memory broker lives in one process, so `manage.py runserver` also relays and consumes.
"""

from __future__ import annotations

import os

from settings.base import *
from settings.base import BASE_DIR, sqlite

DEBUG = True
DATABASES = {"default": sqlite(os.environ.get("DEMO_DATABASE", BASE_DIR / "demo.sqlite3"))}
