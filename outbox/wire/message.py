"""The message: what was published, as it travels."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from outbox.wire import codecs


@dataclass(frozen=True, slots=True)
class Message:
    """One message, final: its bytes are never encoded again.

    ``id`` is its identity for every consumer. ``key`` is ``""`` when no order is asked for.
    ``time`` is the producer's clock in UTC and is metadata: nothing is decided by it.
    ``headers`` are the publisher's own; CloudEvents attributes are fields of this class.
    """

    id: uuid.UUID
    topic: str
    body: bytes
    source: str
    time: dt.datetime
    key: str = ""
    content_type: str = codecs.JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def payload(self) -> object:
        """The body decoded by its content type, afresh on each access. Raises `DecodeError`."""
        return codecs.decode(self.body, self.content_type)
