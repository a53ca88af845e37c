"""The demonstration's count must be able to fail."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal

import pytest

from demo_app.demo.figures import invariants, take
from demo_app.models import Bill, Mail, Order, Shipment
from demo_app.orders import Draft, Line, place_order
from outbox.models import OutboxMessage, OutboxTodo

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop():
    """Two orders, sent, delivered and handled once by each group."""
    from inbox.models import InboxMessage
    from inbox.testing import deliver
    from outbox.testing import drain

    for invoice in ("A1", "A2"):
        line = Line("71053", "WHITE METAL LANTERN", 2, Decimal("3.39"))
        place_order(Draft(invoice, "7", "France", dt.datetime.now(dt.UTC), [line]))
    drain()
    for row in OutboxMessage.objects.all():
        for group in ("warehouse", "billing", "mail"):
            assert deliver(row.to_message(), group).result == "processed"
    assert InboxMessage.objects.count() == 6


def broken():
    return {promise.text for promise in invariants() if not promise.holds}


def test_all_hold(shop):
    assert broken() == set()
    assert take().settled


def test_a_lost_effect_shows(shop):
    Bill.objects.filter(invoice="A1").delete()
    assert broken() == {"handled once by billing", "lost"}


def test_an_effect_that_happened_twice_shows(shop):
    Mail.objects.create(invoice="A1", message_id=uuid.uuid4(), subject="again")
    assert broken() == {"handled once by mail", "handled twice"}


def test_an_order_without_its_message_shows(shop):
    OutboxMessage.objects.filter(key="7").first().delete()
    assert "messages, one an order" in broken()


def test_what_is_unsent_shows(shop):
    OutboxTodo.objects.create(seq=99, broker="default", slot=0)
    assert "unsent" in broken()
    assert not take().settled


def test_a_shop_without_orders_proves_nothing(db):
    assert "orders" in broken()


def test_an_effect_without_an_order_is_no_order(shop):
    Order.objects.filter(invoice="A2").delete()
    Shipment.objects.filter(invoice="A2").delete()
    assert "messages, one an order" in broken()
