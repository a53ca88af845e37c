"""The orders service: an order and its message, in one transaction."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.db import transaction

from demo_app.models import Order, OrderLine
from outbox import publish

PLACED = "orders.placed"
CANCELLED = "orders.cancelled"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an order."""

    stock_code: str
    description: str
    quantity: int
    unit_price: Decimal


@dataclass(frozen=True, slots=True)
class Draft:
    """An order before it is placed. ``cancels``: it takes an earlier one back."""

    invoice: str
    customer: str
    country: str
    placed_at: dt.datetime
    lines: Sequence[Line]
    cancels: bool = False

    @classmethod
    def now(cls, customer: str, lines: Sequence[Line], *, cancels: bool = False) -> Draft:
        """An order of this moment, under a new number."""
        number = uuid.uuid4().hex[:12].upper()
        return cls(number, customer, "United Kingdom", dt.datetime.now(dt.UTC), lines, cancels)


@transaction.atomic
def place_order(draft: Draft) -> Order:
    """Store the order and publish its event: both happen or neither does."""
    order = Order(
        invoice=draft.invoice,
        customer=draft.customer,
        country=draft.country,
        placed_at=draft.placed_at,
        total=sum((line.quantity * line.unit_price for line in draft.lines), Decimal(0)),
        cancels=draft.cancels,
    )
    payload = {
        "invoice": order.invoice,
        "customer": order.customer,
        "country": order.country,
        "placed_at": order.placed_at,
        "pieces": sum(line.quantity for line in draft.lines),
        "total": order.total,
    }
    # One customer's orders keep their order; those of unknown customers need not wait for any.
    message = publish(CANCELLED if order.cancels else PLACED, payload, key=order.customer)
    order.message_id = message.id
    order.save(force_insert=True)
    OrderLine.objects.bulk_create(
        OrderLine(
            order=order,
            stock_code=line.stock_code,
            description=line.description,
            quantity=line.quantity,
            unit_price=line.unit_price,
        )
        for line in draft.lines
    )
    return order
