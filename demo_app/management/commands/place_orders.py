"""Place invented orders at a steady rate: the load of the demonstration."""

from __future__ import annotations

import datetime as dt
import random
import time
import uuid
from argparse import ArgumentParser
from decimal import Decimal
from typing import Any, Final

from django.core.management.base import BaseCommand

from demo_app.orders import Draft, Line, place_order

_GOODS: Final = (
    ("85123A", "WHITE HANGING HEART T-LIGHT HOLDER", "2.55"),
    ("71053", "WHITE METAL LANTERN", "3.39"),
    ("84406B", "CREAM CUPID HEARTS COAT HANGER", "2.75"),
    ("22694", "WICKER STAR", "2.10"),
    ("84029G", "KNITTED UNION FLAG HOT WATER BOTTLE", "3.39"),
)
_CUSTOMERS: Final = 200
_CANCELLED: Final = 0.1


class Command(BaseCommand):
    """Runs for ever, or for a time."""

    help = "Place invented orders at a steady rate."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """How many, and how long."""
        parser.add_argument("--rate", type=float, default=40, help="orders a second (default 40)")
        parser.add_argument("--seconds", type=float, help="stop after this time (default: never)")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Place orders; a late one does not make the next ones come in a burst."""
        began = time.monotonic()
        while options["seconds"] is None or time.monotonic() - began < options["seconds"]:
            started = time.monotonic()
            place_order(_invented())
            time.sleep(max(0.0, 1 / options["rate"] - (time.monotonic() - started)))


def _invented() -> Draft:
    lines = [
        Line(code, name, random.randint(1, 12), Decimal(price))
        for code, name, price in random.sample(_GOODS, random.randint(1, 3))
    ]
    return Draft(
        invoice=uuid.uuid4().hex[:12].upper(),
        customer=str(10_000 + random.randrange(_CUSTOMERS)),
        country="United Kingdom",
        placed_at=dt.datetime.now(dt.UTC),
        lines=lines,
        cancels=random.random() < _CANCELLED,
    )
