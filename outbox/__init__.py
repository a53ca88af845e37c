"""Change the database and tell the others: messages that leave if and only if you commit."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outbox.exceptions import MessageTooLarge, NotInTransaction, OutboxError, UnknownTopic
    from outbox.publishing import Draft, apublish, publish, publish_many
    from outbox.store.history import History, history
    from outbox.wire import EncodeError, Message

__all__ = [
    "Draft",
    "EncodeError",
    "History",
    "Message",
    "MessageTooLarge",
    "NotInTransaction",
    "OutboxError",
    "UnknownTopic",
    "apublish",
    "history",
    "publish",
    "publish_many",
]

# Django imports this package before models may be imported, so names are fetched on first use.
_HOMES = {
    "outbox.exceptions": ("MessageTooLarge", "NotInTransaction", "OutboxError", "UnknownTopic"),
    "outbox.publishing": ("Draft", "apublish", "publish", "publish_many"),
    "outbox.store.history": ("History", "history"),
    "outbox.wire": ("EncodeError", "Message"),
}
_EXPORTS = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value
