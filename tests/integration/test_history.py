"""`outbox.history`: what happened to a message, and what of it is written down."""

import json
import uuid
from datetime import timedelta

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from outbox import Draft, history, publish, publish_many
from outbox.models import OutboxEvent, OutboxLane, OutboxMessage
from outbox.store import Done, Failed, Parked, lanes, stores
from tests.outbox_support import VENDORS, rolled_back

DATABASES = ["default", "sqlite"]
pytestmark = pytest.mark.django_db(databases=DATABASES)

LEASE = timedelta(seconds=30)
LATER = timedelta(hours=1)


@pytest.fixture(params=VENDORS)
def using(request):
    return request.param


@pytest.fixture
def send(using):
    """Publish messages with these keys; (id, position) of each."""

    def publish(*keys):
        with transaction.atomic(using=using):
            sent = publish_many([Draft("t", {"n": 1}, key=key) for key in keys], using=using)
        rows = OutboxMessage.objects.using(using).filter(id__in=[m.id for m in sent])
        return list(rows.order_by("seq").values_list("id", "seq"))

    return publish


@pytest.fixture
def settle(using):
    """Settle outcomes as the relay that holds the only lane does."""
    held = stores[using].acquire("default", 0, 1, uuid.uuid4(), LEASE)

    def record(outcomes):
        nonlocal held
        held = stores[using].settle(held, outcomes, LEASE)

    return record


def failed(delay=LATER, **more):
    return Failed("nacked", "no room", delay, **more)


def names(found):
    return [event.name for event in found.events]


class TestStates:
    def test_pending(self, using, send):
        ((one, seq),) = send("k")
        found = history(one, using)
        assert (found.seq, found.broker, found.state, found.attempts) == (
            seq, "default", "pending", 0,
        )  # fmt: skip
        assert (found.message.id, found.message.topic, found.message.key) == (one, "t", "k")
        assert found.message.payload == {"n": 1}
        assert (found.error_class, found.error, found.published_at) == ("", "", None)
        assert found.due_at is not None
        assert names(found) == ["created"]
        assert found.events[0].at == found.created_at == found.message.time

    def test_published_at_once_leaves_no_event_and_has_the_time_of_its_page(
        self, using, send, settle
    ):
        ((one, seq),) = send("")
        settle({seq: Done()})
        found = history(one, using)
        assert (found.state, found.attempts, found.due_at) == ("published", 0, None)
        assert names(found) == ["created", "published"]
        log = OutboxLane.objects.using(using).get(published=1)
        assert found.published_at == found.events[-1].at == log.at
        assert not OutboxEvent.objects.using(using).exists()

    def test_retrying(self, using, send, settle):
        ((one, seq),) = send("")
        settle({seq: failed()})
        found = history(one, using)
        assert (found.state, found.attempts) == ("retrying", 1)
        assert (found.error_class, found.error) == ("nacked", "no room")
        assert found.due_at - found.events[1].at > LATER - timedelta(minutes=1)
        assert names(found) == ["created", "failed"]
        assert found.events[1].detail == "attempt 1: nacked: no room"

    def test_dead(self, using, send, settle):
        ((one, seq),) = send("")
        settle({seq: failed()})
        settle({seq: failed(None)})
        found = history(one, using)
        assert (found.state, found.attempts, found.due_at) == ("dead", 2, None)
        assert names(found) == ["created", "failed", "dead"]

    def test_parked_and_then_published(self, using, send, settle):
        (head, behind) = send("k", "k")
        settle({head[1]: failed(), behind[1]: Parked()})
        found = history(behind[0], using)
        assert (found.state, found.due_at) == ("parked", None)
        assert names(found) == ["created", "parked"]
        settle({head[1]: Done()})
        assert history(behind[0], using).state == "pending"
        settle({behind[1]: Done()})
        found = history(behind[0], using)
        assert names(found) == ["created", "parked", "published"]
        assert found.published_at == OutboxEvent.objects.using(using).latest("id").at

    def test_published_after_a_failure(self, using, send, settle):
        ((one, seq),) = send("")
        settle({seq: failed()})
        settle({seq: Done()})
        found = history(one, using)
        assert (found.state, found.attempts, found.error_class) == ("published", 0, "")
        assert names(found) == ["created", "failed", "published"]
        assert found.events[-1].detail == "attempt 2"
        times = [event.at for event in found.events[1:]]
        assert times == sorted(times)
        assert found.published_at == times[-1]


class TestPublishedAt:
    def test_one_that_had_failed_does_not_move_the_time_of_the_others(self, using, send, settle):
        (bad, good, last) = send("", "", "")
        settle({bad[1]: failed(), good[1]: Done()})
        before = history(good[0], using).published_at
        settle({bad[1]: Done(), last[1]: Done()})
        assert history(good[0], using).published_at == before

    def test_of_a_late_one_is_not_before_it_left(self, using, send, settle):
        (first, late, last) = send("", "", "")
        settle({first[1]: Done(), last[1]: Done()})
        settle({late[1]: Done()})
        at = OutboxLane.objects.using(using).latest("seq").at
        assert history(late[0], using).published_at == at

    def test_is_unknown_once_its_page_has_left_the_log(self, using, send, settle):
        ((one, seq),) = send("")
        settle({seq: Done()})
        OutboxLane.objects.using(using).update(first_done=None, last_done=None)
        found = history(one, using)
        assert (found.state, found.published_at) == ("published", None)
        assert (found.events[-1].name, found.events[-1].at) == ("published", None)

    @pytest.mark.parametrize("number", [1, 8])
    def test_whichever_lane_it_left_by(self, using, send, number):
        found = send(*(str(n) for n in range(20)))
        rows = OutboxMessage.objects.using(using).in_bulk([seq for _, seq in found])
        for lane in range(number):
            held = stores[using].acquire("default", lane, number, uuid.uuid4(), LEASE)
            mine = [seq for seq, row in rows.items() if row.slot % number == lane]
            stores[using].settle(held, dict.fromkeys(mine, Done()), LEASE)
        assert all(history(one, using).published_at for one, _ in found)


class TestFinding:
    def test_by_text(self, using, send):
        ((one, _),) = send("")
        assert history(str(one), using) == history(one, using)

    def test_nothing(self, using):
        assert history(uuid.uuid4(), using) is None

    def test_what_was_rolled_back_has_none(self, using):
        with rolled_back(using):
            message = publish("t", 1, using=using)
        assert history(message.id, using) is None

    def test_what_is_no_id(self):
        with pytest.raises(ValueError, match="badly formed"):
            history("nonsense")

    def test_the_database_is_the_one_for_writing(self):
        message = publish("t", 1)
        assert history(message.id).state == "pending"


class TestWriting:
    def test_many_of_a_page_take_one_statement_a_kind(self, using, send, settle):
        found = send(*[""] * 30, *["k"] * 30, *[""] * 30)
        positions = [seq for _, seq in found]
        settle(dict.fromkeys(positions[60:], failed()))
        outcomes = {seq: failed() for seq in positions[:30]}
        outcomes |= {seq: Parked() for seq in positions[30:60]}
        outcomes |= {seq: Done() for seq in positions[60:]}
        with CaptureQueriesContext(connections[using]) as queries:
            settle(outcomes)
        inserts = [q for q in queries if q["sql"].startswith('INSERT INTO "outbox_event"')]
        assert len(inserts) == 3
        assert OutboxEvent.objects.using(using).count() == 120

    def test_what_goes_well_takes_no_more_statements_than_it_must(self, using, send, settle):
        positions = [seq for _, seq in send(*[""] * 30)]
        with CaptureQueriesContext(connections[using]) as queries:
            settle(dict.fromkeys(positions, Done()))
        verbs = [q["sql"].split()[0] for q in queries]
        assert [verb for verb in verbs if verb in ("SELECT", "INSERT", "UPDATE", "DELETE")] == [
            "SELECT", "INSERT", "DELETE",
        ]  # fmt: skip

    def test_a_page_that_is_not_recorded_leaves_no_event(self, using, send, settle, monkeypatch):
        def fail(*_):
            raise ZeroDivisionError

        ((one, seq), (_, good)) = send("", "")
        monkeypatch.setattr("outbox.store.base.Store._remove", fail)
        with pytest.raises(ZeroDivisionError):
            settle({seq: failed(), good: Done()})
        assert names(history(one, using)) == ["created"]

    def test_whatever_a_broker_says_can_be_stored(self, using, send, settle):
        ((one, seq),) = send("")
        settle({seq: Failed("E", "a\x00b" + "x" * 5000, LATER)})
        detail = history(one, using).events[-1].detail
        assert detail.startswith("attempt 1: E: a\\x00bxxx")
        assert len(detail) < 600


class TestCost:
    @pytest.mark.parametrize("outcome", [None, Done(), failed(), failed(None)])
    def test_at_most_four_queries(self, using, send, settle, outcome):
        ((one, seq),) = send("k")
        if outcome:
            settle({seq: outcome})
        with CaptureQueriesContext(connections[using]) as queries:
            history(one, using)
        assert len(queries) <= 4

    @pytest.mark.postgres
    @pytest.mark.parametrize("fresh", [False, True])
    def test_reads_by_indexes(self, fresh):
        """Rows that are not this message's do not count, whatever the statistics say."""
        with connection.cursor() as cursor:
            for table in ("message", "todo", "event", "lane"):
                cursor.execute(f"ANALYZE outbox_{table}")
        message = publish("t", 1)
        seq = OutboxMessage.objects.get().seq
        crowd(seq)
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM outbox_todo WHERE seq = %s", [seq])
            if fresh:
                for table in ("message", "todo", "event", "lane"):
                    cursor.execute(f"ANALYZE outbox_{table}")
        with CaptureQueriesContext(connection) as queries:
            assert history(message.id).published_at
        assert len(queries) == 4
        for query in queries.captured_queries:
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query['sql']}")
                plans = cursor.fetchone()[0]
            plans = json.loads(plans) if isinstance(plans, str) else plans
            # The log of eight lanes, in which the page is looked for, is bounded by its pruning.
            assert looked_at(plans[0]["Plan"]) <= 8 * lanes.LOG_KEPT, query["sql"]


def crowd(seq, count=20_000):
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO outbox_message (id, time, slot, broker, topic, source, key,"
            " datacontenttype, headers, data) SELECT gen_random_uuid(), now(), 1, 'default', 't',"
            " '/', '', 'text/plain', '{}', '' FROM generate_series(1, %s)",
            [count],
        )
        cursor.execute(
            "INSERT INTO outbox_todo (seq, broker, slot) SELECT %s + n, 'default', 1"
            " FROM generate_series(1, %s) n",
            [seq, count],
        )
        cursor.execute(
            "INSERT INTO outbox_event (seq, name) SELECT %s + n, 'failed'"
            " FROM generate_series(1, %s) n",
            [seq, count],
        )
        cursor.execute(
            "INSERT INTO outbox_lane (broker, lane, seq, epoch, owner, lease_until, published,"
            " failed, first_done, last_done, lanes, at) SELECT 'default', lane, n, n,"
            " gen_random_uuid(), now(), 1, 0, %s + n - 1, %s + n, 8, now()"
            " FROM generate_series(0, 7) lane, generate_series(0, %s) n",
            [seq, seq, lanes.LOG_KEPT - 1],
        )


def looked_at(plan):
    """Rows that a plan's scans looked at, those that a filter threw away included."""
    own = 0
    if "Scan" in plan["Node Type"] and plan["Node Type"] != "Bitmap Index Scan":
        removed = plan.get("Rows Removed by Filter", 0) + plan.get(
            "Rows Removed by Index Recheck", 0
        )
        own = (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    return own + sum(map(looked_at, plan.get("Plans", [])))
