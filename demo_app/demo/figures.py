"""What the database says about the demonstration, and whether the promises hold."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, Sum

from demo_app.models import EFFECTS, Order
from inbox.models import InboxMessage
from outbox.models import OutboxMessage, OutboxTodo


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts at one moment."""

    orders: int
    messages: int
    unsent: int
    handled: dict[str, int]
    """Group → effects."""
    duplicates: int
    """Deliveries that an inbox dropped because it had handled the message."""

    @property
    def settled(self) -> bool:
        """Whether everything that was ordered has taken effect in each group."""
        return self.unsent == 0 and all(done >= self.orders for done in self.handled.values())


@dataclass(frozen=True, slots=True)
class Invariant:
    """A promise, the figure that shows it, and whether it holds."""

    text: str
    figure: int
    holds: bool


def take() -> Figures:
    """Count now."""
    return Figures(
        orders=Order.objects.count(),
        messages=OutboxMessage.objects.count(),
        unsent=OutboxTodo.objects.count(),
        handled={group: table.objects.count() for group, table in EFFECTS.items()},
        duplicates=InboxMessage.objects.aggregate(sum=Sum("duplicates"))["sum"] or 0,
    )


def invariants() -> list[Invariant]:
    """The promises, checked against the tables; effects have no unique key that could hide one."""
    orders = set(Order.objects.values_list("invoice", flat=True))
    messages = OutboxMessage.objects.count()
    lines = [
        Invariant("orders", len(orders), holds=bool(orders)),
        Invariant("messages, one an order", messages, holds=messages == len(orders)),
        Invariant("unsent", unsent := OutboxTodo.objects.count(), holds=unsent == 0),
    ]
    delivered = InboxMessage.objects.aggregate(sum=Count("id") + Sum("duplicates"))["sum"] or 0
    at_least = len(orders) * len(EFFECTS)
    lines.append(
        Invariant(f"delivered, at least {at_least:,}", delivered, holds=delivered >= at_least)
    )
    lost = twice = 0
    for group, table in EFFECTS.items():
        counts = dict(
            table.objects.values_list("invoice").annotate(times=Count("pk")).order_by("invoice")
        )
        once = sum(times == 1 for times in counts.values())
        lines.append(Invariant(f"handled once by {group}", once, holds=once == len(orders)))
        lost += len(orders - counts.keys())
        twice += sum(times > 1 for times in counts.values())
    lines.append(Invariant("lost", lost, holds=lost == 0))
    lines.append(Invariant("handled twice", twice, holds=twice == 0))
    return lines
