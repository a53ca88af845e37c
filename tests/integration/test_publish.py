import asyncio
import signal
import uuid

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from outbox import (
    Draft,
    EncodeError,
    MessageTooLarge,
    NotInTransaction,
    UnknownTopic,
    apublish,
    publish,
    publish_many,
)
from outbox.models import OutboxMessage, OutboxTodo
from outbox.relay import Relay
from outbox.store import Store
from tests.outbox_support import VENDORS, ScriptedPublisher, finish, rolled_back, start

real_commits = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])
pytestmark = pytest.mark.django_db(databases=["default", "sqlite"])


def topics(using="default"):
    rows = OutboxMessage.objects.using(using).order_by("seq")
    found = list(rows.values_list("topic", flat=True))
    # Each message has its row to do: the relay finds it by that.
    seqs = set(OutboxTodo.objects.using(using).values_list("seq", flat=True))
    assert seqs == set(rows.values_list("seq", flat=True))
    return found


class TestTransaction:
    @real_commits
    def test_outside_of_one(self):
        with pytest.raises(NotInTransaction) as caught:
            publish("a", 1)
        assert str(caught.value) == (
            "publish() ran outside a transaction, so message and business rows could part.\n\n"
            "Wrap both in `with transaction.atomic():`, or set OUTBOX['REQUIRE_TRANSACTION'] = "
            "False to let\neach publish() be a transaction of its own."
        )
        assert topics() == []

    @real_commits
    def test_of_another_database(self):
        with transaction.atomic(), pytest.raises(NotInTransaction):
            publish("a", 1, using="sqlite")
        assert topics("sqlite") == []

    @real_commits
    def test_of_its_own(self, settings):
        settings.OUTBOX = settings.OUTBOX | {"REQUIRE_TRANSACTION": False}
        publish("a", 1)
        assert topics() == ["a"]

    @real_commits
    def test_of_its_own_is_all_or_nothing(self, settings, monkeypatch):
        settings.OUTBOX = settings.OUTBOX | {"REQUIRE_TRANSACTION": False}

        def fail(_):
            raise ZeroDivisionError

        monkeypatch.setattr(Store, "_todo", fail)
        with pytest.raises(ZeroDivisionError):
            publish("a", 1, using="sqlite")
        assert not OutboxMessage.objects.using("sqlite").exists()

    @real_commits
    @pytest.mark.parametrize("using", VENDORS)
    def test_commit_and_rollback(self, using):
        """G1"""
        with transaction.atomic(using=using):
            publish("kept", 1, using=using)
        with rolled_back(using):
            publish("gone", 1, using=using)
        assert topics(using) == ["kept"]

    @real_commits
    @pytest.mark.parametrize("using", VENDORS)
    def test_rollback_to_a_savepoint(self, using):
        """G1"""
        with transaction.atomic(using=using):
            publish("before", 1, using=using)
            with rolled_back(using):
                publish("gone", 1, using=using)
                with transaction.atomic(using=using):
                    publish("released", 1, using=using)
            publish("after", 1, using=using)
        assert topics(using) == ["before", "after"]

    @real_commits
    def test_nobody_sees_it_before_the_commit(self):
        publisher = ScriptedPublisher()
        with transaction.atomic():
            publish("a", 1)
            done = finish(start("from outbox.models import *; print(OutboxTodo.objects.count())"))
            assert done == "0\n"
        Relay("default", "default", publisher).drain()
        assert publisher.topics == ["a"]


DIE = """
import os, signal
from django.db import transaction
from outbox import publish
with transaction.atomic(using={using!r}):
    publish("a", {{"n": 1}}, key="k", using={using!r})
    {before}
{after}
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


@real_commits
@pytest.mark.parametrize("using", VENDORS)
class TestDeath:
    def test_after_the_commit(self, using):
        process = start(DIE.format(using=using, before="pass", after=KILL))
        assert process.wait(30) == -signal.SIGKILL, process.communicate()
        process.communicate()
        assert topics(using) == ["a"]
        publisher = ScriptedPublisher()
        assert Relay("default", using, publisher).drain().published == 1
        assert publisher.submitted[0].payload == {"n": 1}
        assert OutboxTodo.objects.using(using).count() == 0

    def test_before_the_commit(self, using):
        process = start(DIE.format(using=using, before=KILL, after="pass"))
        assert process.wait(30) == -signal.SIGKILL, process.communicate()
        process.communicate()
        assert topics(using) == []


@pytest.mark.parametrize("using", VENDORS)
class TestWhatIsWritten:
    def test_comes_back_as_it_was_returned(self, using):
        sent = publish(
            "orders.placed",
            {"é": [1.5, None, "😀"]},
            key="Ærø-東京",
            headers={"tenant": "Škoda €", "empty": ""},
            using=using,
        )
        assert isinstance(sent.id, uuid.UUID)
        assert (sent.topic, sent.source, sent.key) == ("orders.placed", "/shop", "Ærø-東京")
        assert OutboxMessage.objects.using(using).get().to_message() == sent

    def test_bytes_come_back_as_they_are(self, using):
        body = bytes(range(256))
        publish("a", body, content_type="application/avro", using=using)
        assert OutboxMessage.objects.using(using).get().to_message().payload == body

    def test_what_changes_later_is_not_sent(self, using):
        payload, headers = {"items": [1]}, {"a": "1"}
        sent = publish("a", payload, headers=headers, using=using)
        payload["items"].append(2)
        headers["b"] = "2"
        publisher = ScriptedPublisher()
        Relay("default", using, publisher).drain()
        assert sent.payload == publisher.submitted[0].payload == {"items": [1]}
        assert sent.headers == publisher.submitted[0].headers == {"a": "1"}

    def test_many_keep_their_order(self, using):
        sent = publish_many((Draft(f"t{n}", n) for n in range(250)), using=using)
        rows = OutboxMessage.objects.using(using).order_by("seq")
        assert [row.to_message() for row in rows] == sent
        assert [message.payload for message in sent] == list(range(250))
        assert sorted(sent, key=lambda message: message.id) == sent

    def test_none_at_all(self, using):
        assert publish_many([], using=using) == []

    def test_the_broker_of_its_route(self, using, settings):
        settings.OUTBOX = settings.OUTBOX | {
            "BROKERS": {"default": {"BACKEND": "a.B"}, "stream": {"BACKEND": "a.B"}},
            "ROUTES": [("orders.*", "stream"), ("*", "default")],
        }
        publish_many([Draft("orders.placed", 1), Draft("mail.sent", 1)], using=using)
        for model in (OutboxMessage, OutboxTodo):
            found = model.objects.using(using).order_by("seq").values_list("broker", flat=True)
            assert list(found) == ["stream", "default"]


@pytest.mark.postgres
def test_one_statement(django_assert_num_queries):
    with django_assert_num_queries(1):
        publish("a", {"n": 1}, key="k")
    with django_assert_num_queries(1):
        publish_many(Draft("a", n) for n in range(1000))


@pytest.mark.postgres
def test_a_statement_has_a_bounded_number_of_parameters():
    drafts = [Draft("a", None)] * 5001
    with CaptureQueriesContext(connection) as queries:
        publish_many(drafts)
    assert len(queries) == 2
    assert OutboxMessage.objects.count() == OutboxTodo.objects.count() == 5001


LIMIT = 1000

REFUSED = [
    (Draft("a", object()), EncodeError, "object is not JSON"),
    (Draft("a", float("nan")), EncodeError, "JSON"),
    (Draft("a", "\ud800"), EncodeError, "JSON"),
    (Draft("a", "text", content_type="text/plain"), EncodeError, "no codec for 'text/plain'"),
    (Draft("a", "x" * (LIMIT - 1)), MessageTooLarge, r"'a' message has 1,001 bytes.*1,000"),
    (Draft("", 1), ValueError, "A topic is 1 to 249"),
    (Draft("a b", 1), ValueError, "A topic is"),
    (Draft("a\n", 1), ValueError, "A topic is"),
    (Draft("é", 1), ValueError, "A topic is"),
    (Draft("..", 1), ValueError, "A topic is"),
    (Draft("x" * 250, 1), ValueError, "A topic is"),
    (Draft(None, 1), ValueError, "A topic is"),
    (Draft("a", 1, key=7), TypeError, r"A key is text, not int: use str\(...\)"),
    (Draft("a", 1, key=None), TypeError, "A key is text, not NoneType"),
    (Draft("a", 1, key="x" * 256), ValueError, "A key has at most 255 bytes in UTF-8, not 256"),
    (Draft("a", 1, key="é" * 128), ValueError, "A key has at most 255 bytes in UTF-8, not 256"),
    (Draft("a", 1, key="\x00"), ValueError, "A key must not hold NUL"),
    (Draft("a", 1, key="\udfff"), ValueError, "A key must not hold lone surrogates"),
    (Draft("a", 1, headers={"a": 1}), TypeError, "A header 'a' is text, not int"),
    (Draft("a", 1, headers={1: "a"}), TypeError, "A header name is text, not int"),
    (Draft("a", 1, headers=[("a", "b")]), TypeError, "Headers are a mapping, not list"),
    (Draft("a", 1, headers={"": "b"}), ValueError, "choose another name"),
    (Draft("a", 1, headers={"ce_id": "b"}), ValueError, "'ce_id' belongs to the wire format"),
    (Draft("a", 1, headers={"ce-x": "b"}), ValueError, "'ce-x' belongs to the wire format"),
    (Draft("a", 1, headers={"Content-Type": "b"}), ValueError, "belongs to the wire format"),
    (Draft("a", 1, headers={"é" * 128: "b"}), ValueError, "A header name has at most 255 bytes"),
    (Draft("a", 1, headers={"a": "\x00"}), ValueError, "A header 'a' must not hold NUL"),
    (Draft("a", 1, headers={"a": "\ud800"}), ValueError, "A header 'a' must not hold lone"),
    (Draft("a", 1, headers={"a": "x" * 40_000, "b": "x" * 40_000}), ValueError, "All headers"),
    (Draft("a", b"", content_type="x" * 256), ValueError, "A content type has at most 255"),
    (Draft("a", b"", content_type="\x00"), ValueError, "A content type must not hold NUL"),
    (Draft("nowhere", 1), UnknownTopic, r"No route matches the topic 'nowhere'"),
]


@pytest.mark.parametrize(("draft", "error", "text"), REFUSED, ids=range(len(REFUSED)))
def test_refused_before_anything_is_written(draft, error, text, settings):
    settings.OUTBOX = settings.OUTBOX | {"MAX_BODY": LIMIT, "ROUTES": [("?", "default")]}
    with CaptureQueriesContext(connections["default"]) as queries:
        with pytest.raises(error, match=text):
            publish(
                draft.topic,
                draft.payload,
                key=draft.key,
                headers=draft.headers,
                content_type=draft.content_type,
            )
        with pytest.raises(error, match=text):
            publish_many([Draft("a", 1), draft])
    assert len(queries) == 0


def test_the_largest_that_is_taken(settings):
    settings.OUTBOX = settings.OUTBOX | {"MAX_BODY": LIMIT}
    names = {"x" * 255: "y" * (64 * 1024 - 255)}
    publish("x" * 249, "x" * (LIMIT - 2), key="é" * 127 + "x", headers=names)
    assert len(OutboxMessage.objects.get().to_message().body) == LIMIT


class TestAsync:
    """Django has no async transactions: the sync code around it holds one."""

    @real_commits
    def test_outside_of_a_transaction(self):
        with pytest.raises(NotInTransaction):
            asyncio.run(apublish("a", 1))

    @real_commits
    def test_on_its_own(self, settings):
        settings.OUTBOX = settings.OUTBOX | {"REQUIRE_TRANSACTION": False}

        async def view():
            sent = await apublish("a", {"n": 1}, key="k", headers={"h": "1"})
            await sync_to_async(connections.close_all)()
            return sent

        sent = asyncio.run(view())
        assert OutboxMessage.objects.get().to_message() == sent

    @real_commits
    def test_in_a_transaction_of_the_thread_that_runs_the_sync_code(self):
        with transaction.atomic():
            async_to_sync(apublish)("kept", 1)
        with rolled_back():
            async_to_sync(apublish)("gone", 1)
        assert topics() == ["kept"]
