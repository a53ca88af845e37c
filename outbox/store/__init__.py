"""``stores[alias]``: the store of a database, by its vendor."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from outbox.store.base import Store
from outbox.store.postgresql import PostgreSQLStore
from outbox.store.sqlite import SQLiteStore
from outbox.store.types import Done, Entry, Failed, Lease, Outcome, Outcomes, Parked

__all__ = [
    "Done",
    "Entry",
    "Failed",
    "Lease",
    "Outcome",
    "Outcomes",
    "Parked",
    "Store",
    "stores",
]

_VENDORS: dict[str, type[Store]] = {"postgresql": PostgreSQLStore, "sqlite": SQLiteStore}


class _Stores:
    def __getitem__(self, alias: str) -> Store:
        vendor = connections[alias].vendor
        if vendor not in _VENDORS:
            message = (
                f"The outbox has no store for the database {alias!r} ({vendor}); it knows "
                f"{', '.join(_VENDORS)}."
            )
            raise ImproperlyConfigured(message)
        return _VENDORS[vendor](alias)


stores = _Stores()
