"""Finding messages by what people know of them."""

import uuid
from datetime import timedelta
from fnmatch import fnmatchcase

import pytest
from django.db import connections, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outbox import Draft, publish_many
from outbox.models import OutboxMessage
from outbox.store import Done, Failed, Parked, stores
from outbox.store.selection import Selection, load, state_of
from tests.outbox_support import VENDORS

DATABASES = ["default", "sqlite"]
pytestmark = pytest.mark.django_db(databases=DATABASES)

LEASE = timedelta(seconds=30)
LATER = timedelta(hours=1)
NAMES = ("pending", "retrying", "parked", "dead", "published")


@pytest.fixture(params=VENDORS)
def using(request):
    return request.param


@pytest.fixture(autouse=True)
def _brokers(settings):
    memory = {"BACKEND": "outbox.brokers.memory.MemoryPublisher"}
    settings.OUTBOX = settings.OUTBOX | {
        "BROKERS": {"default": memory, "stream": memory},
        "ROUTES": [("s.*", "stream"), ("*", "default")],
    }


def send(using, *drafts):
    with transaction.atomic(using=using):
        sent = publish_many([Draft(topic, None, key=key) for topic, key in drafts], using=using)
    rows = OutboxMessage.objects.using(using).in_bulk([m.id for m in sent], field_name="id")
    return [rows[message.id] for message in sent]


@pytest.fixture
def rows(using):
    """One message in each state, by its name, and one for another broker."""
    found = send(
        using, ("orders.placed", ""), ("orders.paid", ""), ("orders.x", "k"), ("mail", "k"),
        ("mail", ""), ("s.b", "k"),
    )  # fmt: skip
    pending, retrying, dead, parked, published, stream = found
    held = stores[using].acquire("default", 0, 1, uuid.uuid4(), LEASE)
    outcomes = {
        retrying.seq: Failed("nacked", "no", LATER),
        dead.seq: Failed("returned", "nobody", None),
        parked.seq: Parked(),
        published.seq: Done(),
    }
    stores[using].settle(held, outcomes, LEASE)
    return dict(zip((*NAMES, "stream"), (pending, retrying, parked, dead, published, stream),
                    strict=True))  # fmt: skip


def find(using, rows, limit=100, order="created", **criteria):
    """The names of the rows that are found."""
    positions = Selection(**criteria).positions(using, limit, order)
    names = {row.seq: name for name, row in rows.items()}
    return [names[seq] for seq in positions]


ALL = ["pending", "retrying", "dead", "parked", "published", "stream"]


class TestCriteria:
    def test_none(self, using, rows):
        assert find(using, rows) == ALL

    @pytest.mark.parametrize("state", NAMES)
    def test_a_state(self, using, rows, state):
        expected = ["pending", "stream"] if state == "pending" else [state]
        assert find(using, rows, states=[state]) == expected

    def test_states_with_published_ones_and_without(self, using, rows):
        assert find(using, rows, states=["dead", "published"]) == ["dead", "published"]
        assert find(using, rows, states=["dead", "parked"]) == ["dead", "parked"]
        assert find(using, rows, states=NAMES) == ALL

    def test_ids(self, using, rows):
        ids = [rows["published"].id, rows["dead"].id, uuid.uuid4()]
        assert find(using, rows, ids=ids) == ["dead", "published"]
        assert find(using, rows, ids=ids, states=["dead"]) == ["dead"]
        assert find(using, rows, ids=[uuid.uuid4()]) == []

    @pytest.mark.parametrize("states", [(), ("pending", "retrying", "parked", "dead")])
    def test_topics_keys_and_brokers(self, using, rows, states):
        unsent = [name for name in ALL if name != "published" or not states]

        def found(**criteria):
            return find(using, rows, states=states, **criteria)

        assert found(topics=["orders.*"]) == ["pending", "retrying", "dead"]
        assert found(topics=["orders.p*", "s.?"]) == ["pending", "retrying", "stream"]
        assert found(topics=["*"]) == unsent
        assert found(key="k") == ["dead", "parked", "stream"]
        assert found(key="k", broker="stream") == ["stream"]
        assert found(key="") == [n for n in unsent if n not in ("dead", "parked", "stream")]

    def test_an_error(self, using, rows):
        assert find(using, rows, error="nacked") == ["retrying"]
        assert find(using, rows, error="nacked", states=["dead", "published"]) == []

    def test_a_time_or_a_time_ago(self, using, rows):
        messages = OutboxMessage.objects.using(using)
        messages.filter(seq__lte=rows["dead"].seq).update(created_at=F("created_at") - LATER)
        old, new = ALL[:3], ALL[3:]
        half = timedelta(minutes=30)
        assert find(using, rows, since=half) == new
        assert find(using, rows, until=half) == old
        assert find(using, rows, since=half, states=["parked", "dead"]) == ["parked"]
        at = messages.get(seq=rows["parked"].seq).created_at
        assert find(using, rows, since=at)[0] == "parked"
        assert find(using, rows, until=at) == old


class TestOrder:
    def test_newest_first_and_only_so_many(self, using, rows):
        assert find(using, rows, order="-created", limit=2) == ["stream", "published"]
        assert find(using, rows, order="-created", states=["dead", "parked"]) == ["parked", "dead"]

    def test_what_is_not_published_by_its_time_and_by_its_attempts(self, using, rows):
        assert find(using, rows, order="due")[-1] == "retrying"
        assert "published" not in find(using, rows, order="due")
        assert set(find(using, rows, order="-attempts", limit=2)) == {"retrying", "dead"}

    def test_loaded_in_the_same_order_with_their_states(self, using, rows):
        positions = Selection().positions(using, 100, "-created")
        loaded = load(using, positions)
        assert [row.seq for row in loaded] == positions
        assert [state_of(row) for row in loaded] == [
            "pending", "published", "parked", "dead", "retrying", "pending",
        ]  # fmt: skip


class TestPatterns:
    TOPICS = ("a.b", "a_b", "aXb", "a-b", "ab", "A.b", "a", "b", "a.b.c", "9")

    @pytest.mark.parametrize(
        "pattern",
        ["*", "a*", "*b", "a?b", "a.b", "a_b", "a[._]b", "a[!.]b", "a[0-9A-Z]b", "[a-b]", "[]-]",
         "[!]x]", "%", "a%", "[", "a[", "[!", "a.**c", "a\\.b", "(a)", "a|b", "[^a]",
         "[[:alpha:]]", "^a$"],
    )  # fmt: skip
    def test_match_what_routes_match(self, using, pattern):
        send(using, *((topic, "") for topic in self.TOPICS))
        self.check(using, pattern)

    @given(st.text("ab*?[]!-._%\\X^$", max_size=8))
    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_whatever_they_are(self, using, pattern):
        if not OutboxMessage.objects.using(using).exists():
            send(using, *((topic, "") for topic in self.TOPICS))
        self.check(using, pattern)

    def check(self, using, pattern):
        topics = dict(OutboxMessage.objects.using(using).values_list("seq", "topic"))
        if not pattern:
            return
        found = [topics[seq] for seq in Selection(topics=[pattern]).positions(using, 100)]
        assert sorted(found) == sorted(t for t in topics.values() if fnmatchcase(t, pattern))


def test_nothing_counts_the_message_table(using, rows):
    with CaptureQueriesContext(connections[using]) as queries:
        for states in ((), ("dead",), ("published",)):
            load(using, Selection(states=states).positions(using, 50))
    assert not any("COUNT(" in query["sql"] for query in queries)
    assert all("LIMIT" in q["sql"] for q in queries if "ORDER BY" in q["sql"])
