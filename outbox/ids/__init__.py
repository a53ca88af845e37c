"""Message ids."""

from outbox.ids.uuid7 import uuid7

__all__ = ["uuid7"]
