"""What `outbox_event` keeps of a message: written with the change that it records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from outbox.models import OutboxEvent

_TEXT_LENGTH: Final = 500


@dataclass(frozen=True, slots=True)
class Noted:
    """What is written down of one message. ``attempt`` is the ordinal of a hand-over, or 0."""

    seq: int
    name: str
    attempt: int = 0
    detail: str = ""
    actor: str = ""
    reason: str = ""


def storable(text: str) -> str:
    """A broker may answer anything; what no database stores is escaped."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def note(using: str, noted: Sequence[Noted]) -> None:
    """Write events in the caller's transaction, by one statement. Long texts are cut."""
    OutboxEvent.objects.using(using).bulk_create(
        OutboxEvent(
            seq=one.seq,
            name=one.name,
            attempt=one.attempt,
            detail=storable(one.detail)[:_TEXT_LENGTH],
            actor=storable(one.actor)[:255],
            reason=storable(one.reason)[:_TEXT_LENGTH],
        )
        for one in noted
    )
