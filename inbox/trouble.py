"""Is it the database or the handler that failed? Only the handler's faults are attempts (D18)."""

from __future__ import annotations

from typing import Final

from django.db import OperationalError, connections

_CLASSES: Final = ("08", "53", "57P")
"""SQLSTATE classes: connection, resources (disk, memory, connections), operator (shutdown)."""
_CODES: Final = ("40001", "40P01")
"""Serialization failure and deadlock: the same transaction may well succeed."""
_SQLITE: Final = (5, 6, 10, 13, 14)
"""Primary result codes: busy, locked, input/output error, disk full, cannot open."""
_IN_TRANSACTION: Final = 2
"""libpq's PQTRANS_INTRANS: in a transaction that can be committed."""


def is_transient(error: BaseException | None) -> bool:
    """Whether this error, or one that it was raised from, is the database's passing trouble."""
    while error is not None:
        if isinstance(error, OperationalError) and _is_passing(error.__cause__):
            return True
        error = error.__cause__
    return False


def _is_passing(cause: BaseException | None) -> bool:
    sqlite = getattr(cause, "sqlite_errorcode", None)
    if sqlite is not None:
        # The upper bits extend the primary code.
        return (sqlite & 0xFF) in _SQLITE
    for name in ("sqlstate", "pgcode"):
        if hasattr(cause, name):
            state = getattr(cause, name)
            # Without a state it was not the server that answered: the connection is gone.
            return state is None or state in _CODES or state.startswith(_CLASSES)
    return False


def is_lost(using: str) -> bool:
    """Whether the connection died under the current transaction.

    Not when the handler itself has closed it: that would fail for ever.
    """
    connection = connections[using]
    if connection.closed_in_transaction:
        return False
    return bool(getattr(connection.connection, "closed", False))


def is_committable(using: str) -> bool:
    """Whether leaving the current block will commit what was done in it.

    Django and PostgreSQL both turn the commit of a failed transaction into a rollback without
    raising, so a handler that swallows a database error would be acknowledged and lost.
    """
    connection = connections[using]
    if connection.needs_rollback or connection.closed_in_transaction:
        return False
    raw = connection.connection
    info = getattr(raw, "info", None)
    if info is not None:
        return bool(info.transaction_status == _IN_TRANSACTION)
    return bool(getattr(raw, "in_transaction", True))


def close_old_connections() -> None:
    """Drop connections that died or are too old; nothing else does it in a long loop (J1).

    Never inside a transaction, where Django's own function would break the caller (J2).
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
