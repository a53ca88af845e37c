"""The shop's pages: catalogue, basket, orders."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from demo_app.catalogue import BY_CODE, SHELVES, Product
from demo_app.models import Order
from demo_app.orders import Draft, Line, place_order
from demo_app.timeline import Story

_RECENT: Final = 20
_REMEMBERED: Final = 5
"""How many of a visitor's own orders the session knows."""

_quantity: Final = forms.IntegerField(min_value=1, max_value=99)
_customer: Final = forms.CharField(max_length=20, required=False)


@dataclass(frozen=True, slots=True)
class Item:
    """One product in a basket."""

    product: Product
    quantity: int

    @property
    def total(self) -> Decimal:
        """Price times quantity."""
        return self.product.price * self.quantity


@require_safe
def catalogue(request: HttpRequest) -> HttpResponse:
    """Everything that the shop sells."""
    return render(request, "shop/catalogue.html", {"shelves": SHELVES})


@require_safe
def basket(request: HttpRequest) -> HttpResponse:
    """What the visitor is about to order."""
    items = _items(request)
    total = sum(item.total for item in items)
    return render(request, "shop/basket.html", {"items": items, "total": total})


@require_POST
def add(request: HttpRequest) -> HttpResponse:
    """One more of a product."""
    product = BY_CODE.get(request.POST.get("code", ""))
    if product is None:
        messages.error(request, "The shop does not sell that.")
        return redirect("catalogue")
    chosen = request.session.get("basket", {})
    chosen[product.code] = min(chosen.get(product.code, 0) + 1, 99)
    request.session["basket"] = chosen
    messages.success(request, f"{product.description.title()} is in your basket.")
    return redirect("catalogue")


@require_POST
def change(request: HttpRequest) -> HttpResponse:
    """Set the quantities, or remove one product."""
    chosen = request.session.get("basket", {})
    chosen.pop(request.POST.get("remove"), None)
    for code in chosen:
        try:
            chosen[code] = _quantity.clean(request.POST.get(f"quantity-{code}", chosen[code]))
        except ValidationError:
            messages.error(request, "A quantity is a whole number from 1 to 99.")
    request.session["basket"] = chosen
    return redirect("basket")


@require_POST
def order(request: HttpRequest) -> HttpResponse:
    """Place the order: its rows and its message commit together."""
    items = _items(request)
    if not items:
        messages.error(request, "Your basket is empty: there is nothing to order.")
        return redirect("catalogue")
    try:
        customer = _customer.clean(request.POST.get("customer"))
    except ValidationError:
        messages.error(request, "A customer's name has at most 20 characters.")
        return redirect("basket")
    lines = [
        Line(item.product.code, item.product.description, item.quantity, item.product.price)
        for item in items
    ]
    placed = place_order(Draft.now(customer, lines))
    remember(request, placed)
    del request.session["basket"]
    messages.success(request, f"Order {placed.invoice} is placed.")
    return redirect("one-order", placed.invoice)


@require_safe
def orders(request: HttpRequest) -> HttpResponse:
    """The visitor's orders and the latest ones, each with what became of its message."""
    mine = Q(invoice__in=request.session.get("orders", []))
    newest = Order.objects.order_by("-pk")
    lists = {"Yours": newest.filter(mine), "Latest": newest.exclude(mine)[:_RECENT]}
    told = {
        title: [(order, Story.of(order.message_id)) for order in found]
        for title, found in lists.items()
    }
    return render(request, "shop/orders.html", {"lists": told, "any": any(told.values())})


@require_safe
def one_order(request: HttpRequest, invoice: str) -> HttpResponse:
    """An order, its lines, and the story of its message."""
    order = get_object_or_404(Order.objects.prefetch_related("lines"), invoice=invoice)
    return render(request, "shop/order.html", {"order": order, "story": Story.of(order.message_id)})


def remember(request: HttpRequest, order: Order) -> None:
    """Let the visitor find this order again."""
    request.session["orders"] = [order.invoice, *request.session.get("orders", [])][:_REMEMBERED]


def _items(request: HttpRequest) -> list[Item]:
    chosen = request.session.get("basket", {})
    return [Item(BY_CODE[code], n) for code, n in chosen.items() if code in BY_CODE]
