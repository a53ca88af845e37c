"""SQLite: one host. Writers take turns, so settle and publish wait for each other."""

from __future__ import annotations

from outbox.store.base import Store

_FORMAT = "'%%Y-%%m-%%d %%H:%%M:%%f'"


class SQLiteStore(Store):
    """The portable form as it is."""

    now = f"strftime({_FORMAT}, 'now')"
    later = f"strftime({_FORMAT}, 'now', %s || ' seconds')"
