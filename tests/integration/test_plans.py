"""PostgreSQL reads what it needs and not the backlog, even with statistics of an empty table."""

import json
import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from outbox.models import OutboxMessage, TodoState
from outbox.store import Done, selection, stores
from outbox.store.selection import Selection

pytestmark = [pytest.mark.postgres, pytest.mark.django_db]

ROWS = 50_000
FILL = """
INSERT INTO outbox_todo (seq, broker, slot, key, state, due_at)
SELECT %s + n, 'default', n %% 64, %s || n, %s, now() + %s * interval '1 hour'
FROM generate_series(1, %s) n
"""


def fill(cursor, count):
    for first, key, state, hours in (
        (0, "", TodoState.NEW, -1),
        (ROWS, "later", TodoState.RETRY, 1),
        (2 * ROWS, "parked", TodoState.PARKED, -1),
    ):
        cursor.execute(FILL, [first, key, state, hours, count if first == 0 else count // 3])


@pytest.fixture(params=["stale", "fresh"])
def held(request):
    """A lane of a table with a large backlog of every kind."""
    with connection.cursor() as cursor:
        # The usual state: the table has been used and is empty when its statistics are taken.
        fill(cursor, 3000)
        cursor.execute("DELETE FROM outbox_todo")
        cursor.execute("ANALYZE outbox_todo")
        fill(cursor, ROWS)
        if request.param == "fresh":
            cursor.execute("ANALYZE outbox_todo")
    return stores["default"].acquire("default", 3, 8, uuid.uuid4(), timedelta(minutes=5))


def rows_read(plan):
    """Rows of the table that this plan looked at, those that a filter threw away included."""
    own = 0
    if plan.get("Relation Name") == "outbox_todo" or "outbox_todo" in plan.get("Index Name", ""):
        removed = plan.get("Rows Removed by Filter", 0) + plan.get(
            "Rows Removed by Index Recheck", 0
        )
        own = (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    return own + sum(map(rows_read, plan.get("Plans", [])))


def explained(verb, *args):
    """The result of a verb, and the rows that its statements on `outbox_todo` look at."""
    with CaptureQueriesContext(connection) as queries:
        result = verb(*args)
    read = 0
    for query in queries.captured_queries:
        if "outbox_todo" in query["sql"] and query["sql"].lstrip().startswith(("SELECT", "WITH")):
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query['sql']}")
                plans = cursor.fetchone()[0]
            plans = json.loads(plans) if isinstance(plans, str) else plans
            read += rows_read(plans[0]["Plan"])
    return result, read


def test_busy_lanes(held):
    lanes, read = explained(stores["default"].busy_lanes, "default", 8)
    assert lanes == list(range(8))
    assert 64 <= read <= 128


def test_claim(held):
    store = stores["default"]
    page, read = explained(store._new, held, 500)
    assert [seq for seq, _key, _attempts in page] == sorted(
        n for n in range(1, ROWS + 1) if n % 64 % 8 == 3
    )[:500]
    assert read <= 8 * 500


def test_due(held):
    page, read = explained(stores["default"].due, held, 500)
    assert page == []
    assert read == 0


def test_blocked_keys(held):
    # Messages do not matter to the plan, so there are none.
    store = stores["default"]
    store._entries = lambda todo, blocked: blocked
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_todo SET key = 'parked' || seq WHERE state = 0 AND seq < 600")
    blocked, read = explained(store.claim, held, 50)
    assert len(blocked) == 50
    assert read <= 8 * 50 + 2 * 50


def test_settle(held):
    store = stores["default"]
    done = [seq for seq, _key, _attempts in store._new(held, 500)]
    with CaptureQueriesContext(connection) as queries:
        store.settle(held, dict.fromkeys(done, Done()), timedelta(0))
    delete = next(q["sql"] for q in queries.captured_queries if q["sql"].startswith("DELETE"))
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {delete}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Seq Scan" not in plan


def test_the_order_of_a_page_is_the_same_under_every_plan(held):
    store = stores["default"]
    with connection.cursor() as cursor:
        # Written again, a row lies behind those that were written later.
        cursor.execute("UPDATE outbox_todo SET attempts = 1 WHERE seq < 3000 AND state = 0")
        by_index = store._new(held, 200)
        for plan in ("indexscan", "bitmapscan", "seqscan"):
            cursor.execute(f"SET LOCAL enable_{plan} = off")
            assert store._new(held, 200) == by_index
    assert [seq for seq, _key, _attempts in by_index] == sorted(seq for seq, *_ in by_index)


@pytest.fixture(params=["stale", "fresh"])
def _messages(request):
    """Many published messages, and a few of which something is still to be done."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE outbox_message")
        cursor.execute("ANALYZE outbox_todo")
        cursor.execute(
            "INSERT INTO outbox_message (id, time, slot, broker, topic, source, key,"
            " datacontenttype, headers, data) SELECT gen_random_uuid(), now(), n % 64, 'default',"
            " 'orders.placed', '/', '', 'text/plain', '{}', '' FROM generate_series(1, 20000) n"
        )
        cursor.execute(
            "INSERT INTO outbox_todo (seq, broker, slot, state)"
            " SELECT seq, broker, slot, seq % 4 FROM outbox_message ORDER BY seq LIMIT 40"
        )
        if request.param == "fresh":
            cursor.execute("ANALYZE outbox_message")
            cursor.execute("ANALYZE outbox_todo")


def messages_read(plan):
    own = 0
    if plan.get("Relation Name") == "outbox_message" and "Scan" in plan["Node Type"]:
        own = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return own + sum(map(messages_read, plan.get("Plans", [])))


@pytest.mark.usefixtures("_messages")
@pytest.mark.parametrize(
    ("wanted", "most"),
    [
        (Selection(), 50),
        (Selection(states=["dead"]), 30),
        (Selection(states=["dead", "retrying"], broker="default", key=""), 60),
        (Selection(states=["dead"], topics=["orders.*"]), 90),
        (Selection(states=["published"]), 60),
        (Selection(topics=["no.such.topic"]), 1000),
    ],
)
def test_a_page_of_the_list_does_not_read_the_messages(wanted, most, monkeypatch):
    monkeypatch.setattr(selection, "RECENT", 1000)
    with CaptureQueriesContext(connection) as queries:
        rows = selection.with_state(OutboxMessage.objects.using("default"))
        list(wanted.narrow(rows, 10_000).order_by("-seq")[:50])
    read = 0
    for query in queries.captured_queries:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query['sql']}")
            plans = cursor.fetchone()[0]
        plans = json.loads(plans) if isinstance(plans, str) else plans
        read += messages_read(plans[0]["Plan"])
    # One more for the newest position.
    assert read <= most + 1
