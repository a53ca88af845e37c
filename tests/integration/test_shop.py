"""The shop's views, without a browser."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import re
import uuid

import pytest
from django.test import Client

import inbox.testing
import outbox
from demo_app import timeline
from demo_app.catalogue import BY_CODE
from demo_app.demo import database, relay
from demo_app.models import EFFECTS, Order, OrderLine
from demo_app.orders import Draft, Line, place_order
from inbox.models import InboxMessage, State
from outbox import UnknownTopic
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.services.process import Proc

pytestmark = pytest.mark.django_db

LANTERN = BY_CODE["71053"]


def ordered(client, **fields) -> Order:
    client.post("/basket/add/", {"code": LANTERN.code})
    response = client.post("/basket/order/", fields)
    assert response.status_code == 302, response.content
    return Order.objects.latest("pk")


def delivered(client) -> Order:
    """An order that everybody has handled."""
    order = ordered(client)
    deliver()
    return order


def deliver() -> None:
    """What relay and consumers do, in the test's transaction."""
    drain()
    for row in OutboxMessage.objects.all():
        for group in EFFECTS:
            inbox.testing.deliver(row.to_message(), group)


def said(response) -> str:
    """The text of a page."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


# Basket


def test_an_order_takes_the_basket_and_notes_its_message(client):
    order = ordered(client, customer="Ada")
    message = OutboxMessage.objects.get()
    assert order.message_id == message.id
    assert message.key == order.customer == "Ada"
    assert order.total == LANTERN.price
    assert json.loads(bytes(message.body))["invoice"] == order.invoice
    assert "Your basket is empty" in said(client.get("/basket/"))


def test_an_empty_basket_orders_nothing(client):
    response = client.post("/basket/order/", follow=True)
    assert "Your basket is empty: there is nothing to order." in said(response)
    assert not Order.objects.exists()
    assert not OutboxMessage.objects.exists()


def test_what_the_shop_does_not_sell_is_not_added(client):
    assert "does not sell" in said(client.post("/basket/add/", {"code": "x"}, follow=True))
    assert "basket" not in client.session


@pytest.mark.parametrize("quantity", ["0", "-1", "100", "1.5", "many", ""])
def test_a_bad_quantity_changes_nothing(client, quantity):
    client.post("/basket/add/", {"code": LANTERN.code})
    response = client.post("/basket/change/", {f"quantity-{LANTERN.code}": quantity}, follow=True)
    assert "A quantity is a whole number from 1 to 99." in said(response)
    assert client.session["basket"] == {LANTERN.code: 1}


def test_a_quantity_counts_and_a_line_goes(client):
    client.post("/basket/add/", {"code": LANTERN.code})
    client.post("/basket/add/", {"code": "22694"})
    client.post("/basket/change/", {f"quantity-{LANTERN.code}": "3"})
    assert client.session["basket"] == {LANTERN.code: 3, "22694": 1}
    client.post("/basket/change/", {"remove": LANTERN.code})
    assert client.session["basket"] == {"22694": 1}


def test_a_basket_never_has_more_of_a_product_than_can_be_ordered(client):
    for _ in range(101):
        client.post("/basket/add/", {"code": LANTERN.code})
    assert client.session["basket"] == {LANTERN.code: 99}


def test_a_customer_with_too_long_a_name_orders_nothing(client):
    client.post("/basket/add/", {"code": LANTERN.code})
    response = client.post("/basket/order/", {"customer": "x" * 21}, follow=True)
    assert "at most 20 characters" in said(response)
    assert not Order.objects.exists()


def test_an_order_that_fails_leaves_neither_rows_nor_a_message_and_keeps_the_basket(
    client, monkeypatch
):
    def fail(*_args):
        raise RuntimeError("the lines cannot be stored")

    monkeypatch.setattr(OrderLine.objects, "bulk_create", fail)
    client.post("/basket/add/", {"code": LANTERN.code})
    with pytest.raises(RuntimeError, match="lines"):
        client.post("/basket/order/")
    assert not Order.objects.exists()
    assert not OutboxMessage.objects.exists()
    assert client.session["basket"] == {LANTERN.code: 1}


def test_a_message_that_cannot_be_published_leaves_no_order(client, settings):
    settings.OUTBOX = {**settings.OUTBOX, "ROUTES": [("nothing.*", "default")]}
    client.post("/basket/add/", {"code": LANTERN.code})
    with pytest.raises(UnknownTopic):
        client.post("/basket/order/")
    assert not Order.objects.exists()


@pytest.mark.parametrize("path", ["basket/add", "basket/change", "basket/order"])
def test_nothing_changes_by_a_link(client, path):
    assert client.get(f"/{path}/").status_code == 405


# Orders and messages


def test_without_orders_the_list_says_so(client):
    assert "Nobody has ordered anything yet" in said(client.get("/orders/"))


def test_visitors_find_their_own_orders_apart_from_the_others(client):
    mine = ordered(client)
    other = place_order(Draft.now("", [Line("1", "star", 1, LANTERN.price)]))
    yours, latest = said(client.get("/orders/")).split("Latest")
    assert mine.invoice in yours
    assert other.invoice not in yours
    assert other.invoice in latest
    assert mine.invoice not in latest


def test_an_order_of_before_its_message_was_noted_is_shown(client):
    order = Order.objects.create(invoice="A1", placed_at=dt.datetime.now(dt.UTC), total=1)
    assert "There is none" in said(client.get(f"/orders/{order.invoice}/"))
    assert "No message" in said(client.get("/orders/"))


def test_a_message_that_waits_is_open_and_looked_at_again(client):
    page = client.get(f"/messages/{ordered(client).message_id}/")
    assert "Waiting for the relay" in said(page)
    assert "Mail has not handled it yet" in said(page)
    assert b"data-open" in page.content


def test_a_handled_message_is_not_looked_at_again(client):
    page = client.get(f"/messages/{delivered(client).message_id}/")
    assert "Handled by all 3 groups" in said(page)
    assert b"data-open" not in page.content


@pytest.mark.parametrize("group", EFFECTS)
def test_a_dead_group_is_no_success(client, group):
    order = delivered(client)
    InboxMessage.objects.filter(group_name=group).update(state=State.DEAD)
    assert "Dead in 1 of 3 groups" in said(client.get(f"/messages/{order.message_id}/"))


def test_an_unknown_message_is_explained(client):
    page = client.get(f"/messages/{uuid.uuid4()}/")
    assert page.status_code == 404
    assert "There is no such message" in said(page)
    assert "rolled back" in said(page)


@pytest.mark.parametrize("experiment", ["twice", "altered", "kill"])
def test_no_experiment_on_an_unknown_message(client, experiment):
    path = f"/messages/{uuid.uuid4()}/{experiment}/"
    assert client.post(path).status_code == 404
    assert client.get(path).status_code == 405


def test_a_confirm_that_left_the_log_still_stands_before_the_handlers(client, monkeypatch):
    order = delivered(client)
    known = outbox.history(order.message_id)
    events = tuple(
        dataclasses.replace(event, at=None) if event.name == "published" else event
        for event in known.events
    )
    forgotten = dataclasses.replace(known, published_at=None, events=events)
    monkeypatch.setattr(timeline.outbox, "history", lambda _id: forgotten)
    steps = [step.title for step in timeline.Story.of(order.message_id).steps]
    assert steps[:2] == ["Written", "Confirmed by the broker"]


# Experiments


def test_a_second_delivery_has_no_second_effect(client):
    order = delivered(client)
    response = client.post(f"/messages/{order.message_id}/twice/", follow=True)
    assert "Delivered to 3 groups: 3 dropped it as a duplicate." in said(response)
    assert all(table.objects.count() == 1 for table in EFFECTS.values())


def test_other_content_is_quarantined_and_has_no_effect(client):
    order = delivered(client)
    response = client.post(f"/messages/{order.message_id}/altered/", follow=True)
    assert "3 groups got a total of 0.01 under this id: 3 quarantined it." in said(response)
    assert "Billing quarantined other content under this id" in said(response)
    assert EFFECTS["billing"].objects.get().amount == order.total


def test_a_forgery_before_the_real_message_is_not_sent(client):
    order = ordered(client)
    response = client.post(f"/messages/{order.message_id}/altered/", follow=True)
    assert "No group has this message yet" in said(response)
    deliver()
    assert EFFECTS["billing"].objects.get().amount == order.total


def test_where_the_relay_is_no_process_of_its_own_nothing_is_killed(client):
    order = ordered(client)
    response = client.post(f"/messages/{order.message_id}/kill/", follow=True)
    assert "Run: make demo" in said(response)
    assert Order.objects.count() == 1


def test_a_relay_that_is_gone_already_is_not_killed_twice(client, settings, tmp_path):
    settings.DEMO_DIR = tmp_path
    relay.note(os.getpid())
    noted = json.loads((tmp_path / "relay.json").read_text())
    # Its number belongs to another process now: to this one.
    (tmp_path / "relay.json").write_text(json.dumps({**noted, "started": noted["started"] - 1}))
    order = ordered(client)
    response = client.post(f"/messages/{order.message_id}/kill/", follow=True)
    assert "was down already" in said(response)
    assert "nobody: the relay is being started again" in said(response)
    assert Proc.of(os.getpid()).alive
    assert Order.objects.count() == 2


# Every page


def test_every_page_has_the_security_policy(client):
    for path in ("/", "/basket/", "/orders/", "/admin/login/", f"/messages/{uuid.uuid4()}/"):
        policy = client.get(path).headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy


def test_the_status_line_says_what_is_unsent(client):
    ordered(client)
    assert "Unsent 1 " in said(client.get("/"))
    deliver()
    assert "Unsent 0 " in said(client.get("/"))


def test_a_post_without_a_token_is_refused():
    assert Client(enforce_csrf_checks=True).post("/basket/add/").status_code == 403


def test_the_superuser_is_made_once(django_user_model):
    database.make_ready()
    user = django_user_model.objects.get()
    assert user.check_password("demo")
    user.set_password("other")
    user.save()
    database.make_ready()
    assert not django_user_model.objects.get().check_password("demo")
