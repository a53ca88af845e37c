"""What people ask reads the rows of its answer, even with statistics of an empty table."""

import json
import uuid

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from inbox import databases, history
from inbox.selection import Selection, listed

pytestmark = [pytest.mark.postgres, pytest.mark.django_db]

ROWS = 10_000
GROUPS = 4
FILL = """
INSERT INTO inbox_message (group_name, message_id, fingerprint, fp_version, state, topic, "key",
  source, "time", content_type, headers, processed_at)
SELECT 'group' || n %% {groups}, gen_random_uuid(), ''::bytea, 1, 1, 'orders.placed', '', '/shop',
  now(), '', '{{}}', now()
FROM generate_series(1, %s) n
"""
KEEP = """
INSERT INTO inbox_quarantine (group_name, message_id, reason, detail, topic, headers,
  body, body_size)
SELECT 'group0', gen_random_uuid(), 'unreadable', '', '', '{}', '', 0 FROM generate_series(1, %s) n
"""
NOTE = """
INSERT INTO inbox_event (message_id, name, attempt, detail)
SELECT id, 'failed', 1, '' FROM inbox_message
"""
TABLES = ("inbox_message", "inbox_event", "inbox_quarantine")


def fill(cursor, count):
    cursor.execute(FILL.format(groups=GROUPS), [count])
    cursor.execute(KEEP, [count])
    cursor.execute(NOTE)


@pytest.fixture(params=["stale", "fresh"], autouse=True)
def _full(request):
    with connection.cursor() as cursor:
        # The usual state: the table has been used and is empty when its statistics are taken.
        fill(cursor, 1000)
        for table in reversed(TABLES):
            cursor.execute(f"DELETE FROM {table}")
            cursor.execute(f"ANALYZE {table}")
        fill(cursor, ROWS)
        if request.param == "fresh":
            for table in TABLES:
                cursor.execute(f"ANALYZE {table}")


def rows_read(plan):
    """Rows of the inbox's tables that this plan looked at, those that a filter dropped included."""
    own = 0
    if "inbox_" in plan.get("Relation Name", plan.get("Index Name", "")):
        removed = plan.get("Rows Removed by Filter", 0) + plan.get(
            "Rows Removed by Index Recheck", 0
        )
        own = (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    return own + sum(map(rows_read, plan.get("Plans", [])))


def explained(verb, *args):
    with CaptureQueriesContext(connection) as queries:
        result = verb(*args)
    read = 0
    for query in queries.captured_queries:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query['sql']}")
            plans = cursor.fetchone()[0]
        plans = json.loads(plans) if isinstance(plans, str) else plans
        read += rows_read(plans[0]["Plan"])
    return result, read


def one(table, column="message_id"):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM {table} OFFSET 5000 LIMIT 1")
        return cursor.fetchone()[0]


def test_the_groups_are_found_by_a_probe_each():
    groups, read = explained(databases.groups, "default")
    assert groups == [f"group{n}" for n in range(GROUPS)]
    assert read <= 2 * GROUPS


def test_a_history_reads_what_it_tells():
    found, read = explained(history, one("inbox_message"))
    assert len(found) == 1
    assert read <= 2 * GROUPS + 10


def test_a_quarantined_delivery_is_found_by_its_id():
    found, read = explained(history, one("inbox_quarantine"))
    assert [entry.state for entry in found] == ["quarantined"]
    assert read <= 2 * GROUPS + 10


def test_an_unknown_id_reads_next_to_nothing():
    found, read = explained(history, uuid.uuid4())
    assert found == []
    assert read <= 2 * GROUPS


@pytest.mark.parametrize("state", ["dead", "parked", "discarded"])
def test_what_waits_for_a_person_is_listed_without_reading_what_is_done(state):
    with connection.cursor() as cursor:
        cursor.execute("UPDATE inbox_message SET state = 3 WHERE id % 500 = 0")
    selection = Selection(states=(state,))
    found, read = explained(listed, selection, ["default"], "-received", 51)
    assert len(found) == (ROWS // 500 if state == "dead" else 0)
    assert read <= 10 * ROWS // 500


def test_the_newest_are_listed_without_reading_the_rest():
    found, read = explained(listed, Selection(), ["default"], "-received", 51)
    assert len(found) == 51
    assert read <= 2 * 51


@pytest.mark.parametrize("table", ["inbox_message", "inbox_quarantine"])
def test_one_is_found_by_its_id_without_reading_the_rest(table):
    selection = Selection(ids=(one(table),))
    found, read = explained(listed, selection, ["default"], "-received", 51)
    assert len(found) == 1
    assert read <= 4 * GROUPS + 10
