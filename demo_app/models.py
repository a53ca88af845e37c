"""The shop's tables, and those of its warehouse, billing and mail."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """One invoice: what a customer bought, or gave back."""

    invoice = models.CharField(max_length=20, unique=True)
    customer = models.CharField(max_length=20, blank=True)
    country = models.CharField(max_length=60, blank=True)
    placed_at = models.DateTimeField()
    total = models.DecimalField(max_digits=14, decimal_places=4)
    cancels = models.BooleanField(default=False)
    message_id = models.UUIDField(null=True, unique=True)
    """Of the message that told the others; None for orders of before it was noted."""

    def __str__(self) -> str:
        return self.invoice


class OrderLine(models.Model):
    """One line of an order; quantity and price may be negative (returns, adjustments)."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    stock_code = models.CharField(max_length=20)
    description = models.CharField(max_length=200, blank=True)
    quantity = models.IntegerField()
    unit_price = models.DecimalField(max_digits=14, decimal_places=4)

    def __str__(self) -> str:
        return f"{self.quantity} x {self.stock_code}"


class Effect(models.Model):
    """What a group did about an order.

    Deliberately without a unique constraint: an effect that happened twice must show as two rows.
    """

    invoice = models.CharField(max_length=20, db_index=True)
    message_id = models.UUIDField()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{type(self).__name__} of {self.invoice}"


class Shipment(Effect):
    """The warehouse sent these pieces, or took them back (negative)."""

    pieces = models.IntegerField()


class Bill(Effect):
    """Billing charged this amount, or credited it (negative)."""

    amount = models.DecimalField(max_digits=14, decimal_places=4)


class Mail(Effect):
    """The mail that the customer got."""

    subject = models.CharField(max_length=200)


EFFECTS: dict[str, type[Effect]] = {"warehouse": Shipment, "billing": Bill, "mail": Mail}
"""Group → the table of what it did."""
