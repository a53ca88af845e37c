"""What `publish()` costs the transaction that it is called in."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from benchmarks.harness import COST, Pair, Timing, case, check, timed_each
from benchmarks.messages import HEADERS, PAYLOAD, TOLD, clear
from benchmarks.models import Account, Order
from outbox import publish
from outbox.conf import get_settings
from outbox.models import OutboxMessage


@case(
    needs=(),
    count=100,
    turns=10,
    unit=COST,
    subject="Django transaction of three queries with one publish()",
    baseline="the same transaction without it",
)
def publish_overhead(count: int) -> Iterator[Pair]:
    """A business transaction with one publish() against the same without; one writer."""
    clear()
    # No account twice in a turn: one busy row would slow down both sides alike.
    made = Account.objects.bulk_create([Account() for _ in range(count)])
    accounts = [account.pk for account in made]

    def run(*, publishing: bool) -> Timing:
        orders, sent = Order.objects.count(), OutboxMessage.objects.count()
        result = timed_each(lambda pk: _transact(pk, publishing=publishing), accounts)
        check("orders", Order.objects.count() - orders, count)
        check("messages", OutboxMessage.objects.count() - sent, count if publishing else 0)
        return result

    statements = _statements(accounts[0], publishing=True) - _statements(
        accounts[0], publishing=False
    )
    check("SQL statements of one publish()", statements, 1)
    yield Pair(
        lambda: run(publishing=True),
        lambda: run(publishing=False),
        {**TOLD, "writers": 1, "wakeup": get_settings().wakeup},
        {"statements": statements},
    )


def _transact(account_id: int, *, publishing: bool) -> None:
    with transaction.atomic():
        account = Account.objects.get(pk=account_id)
        Order.objects.create(account=account, amount=1)
        Account.objects.filter(pk=account.pk).update(balance=F("balance") - 1)
        if publishing:
            publish("orders.placed", PAYLOAD, headers=HEADERS)


def _statements(account_id: int, *, publishing: bool) -> int:
    with CaptureQueriesContext(connection) as captured:
        _transact(account_id, publishing=publishing)
    return len(captured)
