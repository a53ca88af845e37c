"""The consuming half: each message takes effect exactly once."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inbox.delivery import Delivery, Disposition
    from inbox.exceptions import Reject, Retry
    from inbox.processing import process
    from inbox.registry import handler
    from inbox.timeline import GroupHistory, history
    from outbox.wire import Message

__all__ = [
    "Delivery",
    "Disposition",
    "GroupHistory",
    "Message",
    "Reject",
    "Retry",
    "handler",
    "history",
    "process",
]

# Lazy, because Django imports this package before it can have models.
_HOMES = {
    "Delivery": "inbox.delivery",
    "Disposition": "inbox.delivery",
    "GroupHistory": "inbox.timeline",
    "Message": "outbox.wire",
    "Reject": "inbox.exceptions",
    "Retry": "inbox.exceptions",
    "handler": "inbox.registry",
    "history": "inbox.timeline",
    "process": "inbox.processing",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
