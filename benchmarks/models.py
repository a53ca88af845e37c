"""What a business transaction reads and writes."""

from __future__ import annotations

from django.db import models


class Account(models.Model):
    """Read, and counted down."""

    balance = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"account {self.pk}"


class Order(models.Model):
    """Inserted."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE)
    amount = models.IntegerField()

    def __str__(self) -> str:
        return f"order {self.pk}"
