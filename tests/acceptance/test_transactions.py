"""What commits is sent, what does not is not, wherever the process dies."""

from __future__ import annotations

import signal

import pytest

pytestmark = [pytest.mark.acceptance, pytest.mark.postgres, pytest.mark.rabbitmq]

PLACE = """
import datetime as dt, os, signal
from decimal import Decimal
from django.db import transaction
from demo_app.orders import Draft, Line, place_order

def place(invoice):
    line = Line("71053", "WHITE METAL LANTERN", 1, Decimal("3.39"))
    return place_order(Draft(invoice, "1", "France", dt.datetime.now(dt.UTC), [line]))
"""


def test_a_process_that_dies_right_after_commit_has_published(on_rabbitmq):
    died = on_rabbitmq.python(PLACE + "place('A1'); os.kill(os.getpid(), signal.SIGKILL)")
    assert died.returncode == -signal.SIGKILL
    on_rabbitmq.start_consumers()
    on_rabbitmq.manage("outbox_relay", "--drain")
    on_rabbitmq.wait_settled()
    assert on_rabbitmq.orders() == {"A1"}
    on_rabbitmq.assert_each_effect_once()


def test_a_process_that_dies_before_commit_has_not(on_rabbitmq):
    died = on_rabbitmq.python(
        PLACE + "with transaction.atomic(): place('A1'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert died.returncode == -signal.SIGKILL
    assert on_rabbitmq.one("SELECT count(*) FROM outbox_message") == 0
    assert on_rabbitmq.orders() == set()


def test_what_is_rolled_back_is_not_sent(on_rabbitmq):
    done = on_rabbitmq.python(
        PLACE
        + """
class Undo(Exception): pass
try:
    with transaction.atomic():
        place('rolled back'); raise Undo
except Undo: pass
with transaction.atomic():
    place('kept')
    try:
        with transaction.atomic():
            place('savepoint'); raise Undo
    except Undo: pass
"""
    )
    assert done.returncode == 0, done.stderr
    on_rabbitmq.start_consumers()
    on_rabbitmq.manage("outbox_relay", "--drain")
    on_rabbitmq.wait_settled()
    assert on_rabbitmq.orders() == {"kept"}
    on_rabbitmq.assert_each_effect_once()


def test_publishing_outside_a_transaction_says_what_to_do(on_rabbitmq):
    done = on_rabbitmq.python("from outbox import publish; publish('orders.placed', {})")
    assert done.returncode == 1
    assert "NotInTransaction" in done.stderr
    assert "transaction.atomic()" in done.stderr
    assert "OUTBOX['REQUIRE_TRANSACTION']" in done.stderr


@pytest.mark.parametrize(
    ("payload", "error"),
    [("object()", "EncodeError"), ("'x' * 1_000_001", "MessageTooLarge")],
)
def test_a_payload_that_cannot_be_sent_fails_in_the_callers_transaction(
    on_rabbitmq, payload, error
):
    done = on_rabbitmq.python(
        PLACE
        + f"""
from outbox import publish
with transaction.atomic():
    place('A1'); publish('orders.placed', {payload})
"""
    )
    assert error in done.stderr
    assert on_rabbitmq.orders() == set()
    assert on_rabbitmq.one("SELECT count(*) FROM outbox_message") == 0
