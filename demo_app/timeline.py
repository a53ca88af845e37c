"""The timeline of a message: from the row beside its order to its effect in each group."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

import inbox
import outbox
from demo_app.demo import relay
from demo_app.models import EFFECTS, Order
from outbox.wire import Message

DONE: Final = "done"
OPEN: Final = "open"
NOTE: Final = "note"
TROUBLE: Final = "trouble"

_SECOND: Final = 1000

# Name of an event → what it looks like, its title, and what it means.
_SENDING: Final = {
    "created": (DONE, "Written", "The order and its message are one transaction."),
    "published": (DONE, "Confirmed by the broker", "For this very message: only now is it sent."),
    "retried": (NOTE, "Retried by a person", ""),
}
_HANDLING: Final = {
    "received": (NOTE, "took it in", ""),
    "processed": (DONE, "handled it", "What it did and its inbox row are one transaction."),
    "duplicate": (NOTE, "dropped a duplicate", "It has handled this id: no handler ran."),
    "quarantined": (
        TROUBLE,
        "quarantined other content under this id",
        "No handler ran: it is evidence.",
    ),
    "retried": (NOTE, "was asked to retry", ""),
}
# State of an unsent message → what it looks like, in a few words, and in a sentence.
_UNSENT: Final = {
    "pending": (OPEN, "waiting for the relay", "Committed, and safe until a relay takes it."),
    "parked": (OPEN, "waiting for its turn", "An earlier message of this customer goes first."),
    "retrying": (OPEN, "retrying", "The broker has not confirmed it; the relay tries again."),
    "dead": (TROUBLE, "dead", "Given up: waits for a person."),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the story. ``after`` is the time since the message was written."""

    kind: str
    title: str
    text: str = ""
    at: dt.datetime | None = None
    after: dt.timedelta | None = None

    @property
    def clock(self) -> str:
        """The time of day."""
        return self.at.astimezone(dt.UTC).strftime("%H:%M:%S.%f")[:-3] if self.at else ""

    @property
    def delay(self) -> str:
        """``after`` for people."""
        if not self.after:
            return ""
        ms = self.after / dt.timedelta(milliseconds=1)
        return f"+{ms:.0f} ms" if abs(ms) < _SECOND else f"+{ms / _SECOND:,.1f} s"


@dataclass(frozen=True, slots=True)
class Deed:
    """What a group saw of this id, and how often that took effect."""

    group: str
    handled: bool
    duplicates: int
    quarantined: int
    effects: int

    @property
    def arrivals(self) -> int:
        """Deliveries of any kind."""
        return self.handled + self.duplicates + self.quarantined


@dataclass(frozen=True, slots=True)
class Story:
    """All that the outbox and the groups know about a message."""

    message: Message
    steps: list[Step]
    deeds: list[Deed]
    kind: str
    glance: str
    """Where it stands, in a few words."""

    @property
    def body(self) -> str:
        """The payload, laid out."""
        return json.dumps(self.message.payload, indent=2, ensure_ascii=False)

    @property
    def is_open(self) -> bool:
        """Whether something is still to come."""
        return self.kind == OPEN

    @classmethod
    def of(cls, message_id: uuid.UUID | None) -> Story | None:
        """The story of a message; None if there is none with this id."""
        sent = outbox.history(message_id) if message_id else None
        if sent is None:
            return None
        groups = {found.group: found for found in inbox.history(sent.message.id)}
        deeds = [_deed(group, groups.get(group), sent.message) for group in EFFECTS]
        past = [*_sending(sent), *_handling(groups, sent)]
        # A confirm of long ago has no time any more; it came before what the groups did.
        past.sort(key=lambda step: step.at or sent.created_at)
        kind, glance = _glance(sent, groups)
        return cls(sent.message, [*past, *_to_come(sent, groups)], deeds, kind, glance)


@require_safe
def message(request: HttpRequest, message_id: uuid.UUID) -> HttpResponse:
    """The page of one message; an unknown id is explained."""
    story = Story.of(message_id)
    context = {
        "message_id": message_id,
        "story": story,
        "order": Order.objects.filter(message_id=message_id).first(),
        "relay": relay.standing(),
    }
    return render(request, "shop/message.html", context, status=200 if story else 404)


def _sending(sent: outbox.History) -> Iterator[Step]:
    for event in sent.events:
        kind, title, text = _SENDING.get(event.name, (TROUBLE, event.name.capitalize(), ""))
        yield _past(kind, title, text or event.detail, event.at, sent)
    # A relay that began after the message was written and before it was sent: the one before died.
    process = relay.standing()
    sent_at = sent.published_at or dt.datetime.max.replace(tzinfo=dt.UTC)
    if process is not None and sent.created_at < process.since < sent_at:
        text = f"Process {process.pid} goes on where the killed one stopped."
        yield _past(NOTE, "Relay started again", text, process.since, sent)


def _handling(groups: Mapping[str, inbox.GroupHistory], sent: outbox.History) -> Iterator[Step]:
    for group, found in groups.items():
        for event in found.events:
            if event.name == "received" and found.state == "processed":
                continue  # usually the same moment
            kind, title, text = _HANDLING.get(event.name, (TROUBLE, event.name, ""))
            if event.name == "duplicate" and found.duplicates > 1:
                text += f" {found.duplicates} times by now, this is the last."
            yield _past(kind, f"{group.capitalize()} {title}", text or event.detail, event.at, sent)


def _to_come(sent: outbox.History, groups: Mapping[str, inbox.GroupHistory]) -> Iterator[Step]:
    if sent.state in _UNSENT:
        kind, glance, text = _UNSENT[sent.state]
        yield Step(kind, glance.capitalize(), sent.error or text)
    for group in EFFECTS:
        found = groups.get(group)
        if found is None or found.state in ("received", "parked"):
            text = f"It tries again: {found.error}" if found and found.error else ""
            yield Step(OPEN, f"{group.capitalize()} has not handled it yet", text)


def _past(kind: str, title: str, text: str, at: dt.datetime | None, sent: outbox.History) -> Step:
    return Step(kind, title, text, at, at - sent.created_at if at else None)


def _glance(sent: outbox.History, groups: Mapping[str, inbox.GroupHistory]) -> tuple[str, str]:
    states = [groups[group].state if group in groups else "" for group in EFFECTS]
    handled = states.count("processed")
    if "dead" in states:
        return TROUBLE, f"dead in {states.count('dead')} of {len(states)} groups"
    if handled == len(states):
        return DONE, f"handled by all {handled} groups"
    if sent.state in _UNSENT:
        return _UNSENT[sent.state][:2]
    if not handled:
        return OPEN, "confirmed, not handled yet"
    return OPEN, f"handled by {handled} of {len(states)} groups"


def _deed(group: str, found: inbox.GroupHistory | None, message: Message) -> Deed:
    events = found.events if found else ()
    payload = message.payload
    assert isinstance(payload, dict)
    # By the invoice too, for its index.
    effects = EFFECTS[group].objects.filter(invoice=payload["invoice"], message_id=message.id)
    return Deed(
        group=group,
        handled=found is not None and found.state == "processed",
        duplicates=found.duplicates if found else 0,
        quarantined=sum(event.name == "quarantined" for event in events),
        effects=effects.count(),
    )
