"""What the warehouse, billing and mail do about an order. Found by the inbox by its name."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from demo_app.models import Bill, Mail, Shipment
from demo_app.orders import CANCELLED, PLACED
from inbox import Message, handler


@handler(PLACED, group="warehouse")
@handler(CANCELLED, group="warehouse")
def ship(message: Message) -> None:
    """Send the pieces, or take them back."""
    order = _order(message)
    Shipment.objects.create(invoice=order["invoice"], message_id=message.id, pieces=order["pieces"])


@handler(PLACED, group="billing")
@handler(CANCELLED, group="billing")
def charge(message: Message) -> None:
    """Charge the total, or credit it."""
    order = _order(message)
    Bill.objects.create(
        invoice=order["invoice"], message_id=message.id, amount=Decimal(order["total"])
    )


@handler(PLACED, group="mail")
@handler(CANCELLED, group="mail")
def write_mail(message: Message) -> None:
    """Tell the customer."""
    order = _order(message)
    verb = "has been cancelled" if message.topic == CANCELLED else "is on its way"
    Mail.objects.create(
        invoice=order["invoice"],
        message_id=message.id,
        subject=f"Your order {order['invoice']} {verb}",
    )


def _order(message: Message) -> dict[str, Any]:
    payload = message.payload
    assert isinstance(payload, dict)
    return payload
