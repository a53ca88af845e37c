"""What both apps say when they are asked what happened to a message."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a message's life, as `outbox.history` and `inbox.history` tell it.

    ``at`` is None for a step that is known to have happened at a time that is not.
    """

    at: dt.datetime | None
    name: str
    detail: str = ""
