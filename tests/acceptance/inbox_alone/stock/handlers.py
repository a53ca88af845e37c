import os
import time
from pathlib import Path

from inbox import Message, handler
from tests.acceptance.inbox_alone.stock.models import Reservation


@handler("orders.placed", group=os.environ["GROUP"])
def reserve(message: Message) -> None:
    assert isinstance(message.payload, dict)
    Reservation.objects.create(order=message.payload["order"])
    if "seconds" in message.payload:
        Path(os.environ["DATABASE"]).with_suffix(".running").touch()
        time.sleep(message.payload["seconds"])
