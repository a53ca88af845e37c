"""Place invented orders at a steady rate: the load of the demonstration."""

from __future__ import annotations

import random
import time
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand

from demo_app.catalogue import PRODUCTS
from demo_app.orders import Draft, Line, place_order

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
        Line(product.code, product.description, random.randint(1, 12), product.price)
        for product in random.sample(PRODUCTS, random.randint(1, 3))
    ]
    customer = str(10_000 + random.randrange(_CUSTOMERS))
    return Draft.now(customer, lines, cancels=random.random() < _CANCELLED)
