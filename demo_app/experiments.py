"""Try to break it: three things that must not change what an order did."""

from __future__ import annotations

import dataclasses
import uuid

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST

import inbox
from demo_app.demo import relay
from demo_app.models import EFFECTS, Order
from demo_app.orders import Draft, Line, place_order
from demo_app.views import remember
from inbox import Delivery, process
from outbox import Message, history
from outbox.wire import encode


@require_POST
def twice(request: HttpRequest, message_id: uuid.UUID) -> HttpResponse:
    """Deliver the stored message to each group again."""
    message = _stored(message_id)
    before = _duplicates(message)
    for group in EFFECTS:
        process(Delivery.of(message, group))
    dropped = _duplicates(message) - before
    messages.success(
        request, f"Delivered to {len(EFFECTS)} groups: {dropped} dropped it as a duplicate."
    )
    return redirect("message", message_id)


@require_POST
def altered(request: HttpRequest, message_id: uuid.UUID) -> HttpResponse:
    """Deliver other content under the id of the stored message."""
    message = _stored(message_id)
    forged = dataclasses.replace(message, body=_cheaper(message))
    # A group that has nothing under this id yet would take the forgery for the real one.
    known = inbox.history(message_id)
    groups = [found.group for found in known if found.state != "quarantined"]
    before = _quarantined(message)
    for group in groups:
        process(Delivery.of(forged, group))
    if groups:
        aside = _quarantined(message) - before
        text = f"{len(groups)} groups got a total of 0.01 under this id: {aside} quarantined it."
        messages.success(request, text)
    else:
        messages.error(request, "No group has this message yet. Try again in a moment.")
    return redirect("message", message_id)


@require_POST
def kill(request: HttpRequest, message_id: uuid.UUID) -> HttpResponse:
    """SIGKILL the relay, then place the same order again: its message has nobody to send it."""
    order = get_object_or_404(Order, message_id=message_id)
    process = relay.standing()
    if process is None:
        messages.error(request, "No relay here is a process of its own. Run: make demo")
        return redirect("message", message_id)
    if process.kill():
        messages.success(
            request, f"Relay process {process.pid} was killed, then this order was placed."
        )
    else:
        messages.error(request, "The relay was down already; this order was placed meanwhile.")
    lines = [
        Line(line.stock_code, line.description, line.quantity, line.unit_price)
        for line in order.lines.all()
    ]
    again = place_order(Draft.now(order.customer, lines, cancels=order.cancels))
    remember(request, again)
    return redirect("message", again.message_id)


def _stored(message_id: uuid.UUID) -> Message:
    found = history(message_id)
    if found is None:
        raise Http404("There is no message with this id.")
    return found.message


def _cheaper(message: Message) -> bytes:
    payload = message.payload
    assert isinstance(payload, dict)
    return encode({**payload, "total": "0.01"}, message.content_type)


def _duplicates(message: Message) -> int:
    return sum(found.duplicates for found in inbox.history(message.id))


def _quarantined(message: Message) -> int:
    events = (event for found in inbox.history(message.id) for event in found.events)
    return sum(event.name == "quarantined" for event in events)
