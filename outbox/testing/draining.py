"""Relay in a test."""

from __future__ import annotations

from django.db import router

from outbox.brokers.memory import MemoryPublisher
from outbox.conf import get_settings
from outbox.models import OutboxMessage
from outbox.relay import DrainReport, Relay


def drain(broker: str | None = None, using: str | None = None) -> DrainReport:
    """Run the real relay until nothing is due, to the memory broker's hub ``"default"``.

    The messages of one broker arrive in the order of their publication.
    ``broker`` is the alias whose messages are drained, by default every alias in turn; what its
    settings say of the backend does not matter. Works in `TestCase` and `TransactionTestCase`.
    """
    alias = using or router.db_for_write(OutboxMessage)
    total = DrainReport()
    for name in [broker] if broker else get_settings().brokers:
        # One lane, so that messages arrive in the order of their publication.
        total.add(Relay(name, alias, MemoryPublisher(name, "", {}), lanes=1).drain())
    return total
