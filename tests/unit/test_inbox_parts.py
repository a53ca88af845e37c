"""The parts of the inbox that need no broker: registry, settings, reading, statistics, helpers."""

import ast
import datetime as dt
import functools
import json
import subprocess
import sys
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db.models.functions import Now
from django.test import override_settings

import inbox
from inbox import Delivery, Disposition, Reject, Retry, handler, registry
from inbox.brokers import make_consumer
from inbox.brokers.memory import MemoryConsumer
from inbox.brokers.offsets import Partition
from inbox.conf import InboxSettings, get_settings
from inbox.exceptions import HandlerExists, HandlerNotFound, InvalidBroker
from inbox.models import InboxMessage, State
from inbox.processing import Processor
from inbox.reading import evidence
from inbox.testing import deliver, handlers, override_inbox
from outbox.wire import Message

ROOT = Path(inbox.__file__).parent


@pytest.fixture(autouse=True)
def _no_handlers():
    with handlers():
        yield


def make(topic="t", body=b"1", **fields):
    known = {"id": uuid.uuid4(), "source": "/shop", "time": dt.datetime.now(dt.UTC)}
    return Message(topic=topic, body=body, **(known | fields))


def do_nothing(message):
    pass


class TestRegistry:
    def test_the_function_is_returned_unchanged(self):
        assert handler("t", group="g")(do_nothing) is do_nothing
        assert registry.resolve("g", "t").function is do_nothing

    def test_topics_and_groups_are_sorted(self):
        for topic, group in [("b", "g"), ("a", "g"), ("a", "f")]:
            handler(topic, group=group)(do_nothing)
        assert registry.topics("g") == ["a", "b"]
        assert registry.groups() == ["f", "g"]
        assert registry.groups("b") == ["g"]

    def test_a_second_handler_is_refused_and_both_are_named(self):
        handler("t", group="g")(do_nothing)

        def other(message):
            pass

        with pytest.raises(HandlerExists) as caught:
            handler("t", group="g")(other)
        for function in (do_nothing, other):
            assert f"{__name__}:{function.__code__.co_firstlineno}" in str(caught.value)
        assert registry.resolve("g", "t").function is do_nothing

    def test_two_pairs_may_not_share_a_queue_name(self):
        handler("b.c", group="a")(do_nothing)
        with pytest.raises(HandlerExists, match=r"a\.b\.c"):
            handler("c", group="a.b")(do_nothing)

    @pytest.mark.parametrize("topic", ["orders.*", "a?", "[ab]", "#", "^a", "", "a b", "t" * 250])
    def test_a_topic_is_no_pattern(self, topic):
        with pytest.raises(ValueError, match="no topic"):
            handler(topic, group="g")

    @pytest.mark.parametrize("group", ["", "a b", "a/b", "ü", "g" * 101])
    def test_a_group_is_a_name(self, group):
        with pytest.raises(ValueError, match="group"):
            handler("t", group=group)

    def test_a_generator_would_run_nothing(self):
        def lazy(message):
            yield message

        with pytest.raises(TypeError, match="generator"):
            handler("t", group="g")(lazy)

    def test_a_callable_without_code_has_a_place_too(self):
        handler("t", group="g")(functools.partial(do_nothing))
        assert registry.resolve("g", "t").place == "functools"

    def test_not_found_says_what_there_is(self):
        handler("known", group="g")(do_nothing)
        with pytest.raises(HandlerNotFound, match=r"'t' in group 'g', which handles known"):
            registry.resolve("g", "t")


class TestSettings:
    @override_settings(INBOX=None)
    def test_none_are_needed(self):
        assert get_settings() == InboxSettings()

    def test_groups_without_an_entry_have_the_defaults(self):
        group = get_settings().group("unknown")
        assert (group.broker, group.prefetch, group.database) == ("default", 100, None)

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"MAX_ATTEMPT": 1}, "Did you mean 'MAX_ATTEMPTS'"),
            ({"MAX_ATTEMPTS": 0}, "MAX_ATTEMPTS must be at least 1"),
            ({"MAX_BODY": "1"}, r"INBOX\['MAX_BODY'\]"),
            ({"GROUPS": {"g": {"PREFETCH": 0}}}, r"INBOX\['GROUPS'\]\['g'\]: PREFETCH"),
            ({"BACKOFF": {"BASE": timedelta(0)}}, r"INBOX\['BACKOFF'\]"),
        ],
    )
    def test_faults_are_named(self, keys, said):
        with override_inbox(**keys), pytest.raises(ImproperlyConfigured, match=said):
            get_settings()

    def test_a_part_of_backoff_keeps_the_other_defaults(self):
        with override_inbox(BACKOFF={"BASE": timedelta(seconds=2)}):
            assert get_settings().backoff.ceiling(99) == timedelta(minutes=15)
            assert get_settings().backoff.ceiling(1) == timedelta(seconds=2)

    def test_override_merges_and_ends(self):
        before = get_settings()
        with override_inbox(GROUPS={"g": {"PREFETCH": 1}}):
            with override_inbox(GROUPS={"h": {"PREFETCH": 2}}):
                prefetch = [get_settings().group(name).prefetch for name in "gh"]
            assert prefetch == [1, 2]
            assert get_settings().brokers == before.brokers
        assert get_settings() == before


class TestBrokers:
    def test_the_memory_broker(self):
        consumer = make_consumer(get_settings(), "g", ["t"])
        assert isinstance(consumer, MemoryConsumer)
        assert (consumer.group, consumer.topics, consumer.prefetch) == ("g", ("t",), 100)

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"GROUPS": {"g": {"BROKER": "defualt"}}}, "Did you mean 'default'"),
            ({"BROKERS": {"default": {"BACKEND": "no.such.Consumer"}}}, "could not import"),
            ({"BROKERS": {"default": {"BACKEND": "inbox.conf.InboxSettings"}}}, "no Consumer"),
        ],
    )
    def test_faults_are_named(self, keys, said):
        with override_inbox(**keys), pytest.raises(InvalidBroker, match=said):
            make_consumer(get_settings(), "g", ["t"])


class TestOffsets:
    def test_only_a_contiguous_prefix_is_committed(self):
        partition = Partition("t", 0, repeats=2)
        assert [partition.fetch(offset) for offset in (4, 7, 8)] == [True, True, False]
        partition.finish(7)
        assert partition.commit is None
        partition.finish(4)
        assert partition.commit == 8
        partition.finish(8)
        assert (partition.commit, list(partition.pending), partition.done) == (9, [], set())

    def test_rewind_forgets_what_is_behind(self):
        partition = Partition("t", 0, repeats=0)
        for offset in range(4):
            partition.fetch(offset)
        partition.finish(3)
        partition.rewind(1)
        assert (list(partition.pending), partition.done) == ([0], set())
        assert partition.fetch(1)
        partition.finish(0)
        assert partition.commit == 1


class TestSignals:
    @pytest.mark.parametrize("after", [timedelta(-1), timedelta(days=367)])
    def test_retry_refuses_what_no_database_can_hold(self, after):
        with pytest.raises(ValueError, match="366 days"):
            Retry(after=after)

    def test_reasons_are_texts(self):
        assert (str(Retry("a")), Reject("b").reason) == ("a", "b")


def test_evidence_is_text_that_any_database_holds():
    assert evidence("a\0b\ud800ü", 100) == "a\\x00b\\ud800ü"
    assert evidence("abc", 2) == "ab"


def test_a_delivery_decodes_once_and_says_why_it_cannot():
    delivery = Delivery.of(make(), "g")
    assert delivery.message is delivery.message


@pytest.mark.django_db
class TestDeliver:
    def test_the_only_group_is_found(self):
        handler("t", group="g")(do_nothing)
        assert deliver(make()).disposition is Disposition.ACK

    @pytest.mark.parametrize(("groups", "said"), [([], "none"), (["g", "h"], "g, h")])
    def test_else_it_must_be_named(self, groups, said):
        for group in groups:
            handler("t", group=group)(do_nothing)
        with pytest.raises(ValueError, match=f"handlers in {said}"):
            deliver(make())


@pytest.mark.django_db
class TestStats:
    @pytest.fixture(autouse=True)
    def _messages(self):
        def fail(message):
            raise Retry(after=timedelta(0))

        def refuse(message):
            raise Reject

        handler("good", group="g")(do_nothing)
        handler("bad", group="g")(fail)
        handler("bad", group="h")(refuse)
        twice = make("good")
        for message in (twice, twice, make("good"), make("bad")):
            deliver(message, "g")
        deliver(make("bad"), "h")
        Processor().handle(Delivery("h", {}, b""))
        # Long ago: not in the span.
        deliver(old := make("good"), "g")
        ago = Now() - timedelta(hours=2)
        InboxMessage.objects.filter(message_id=old.id).update(processed_at=ago)
        InboxMessage.objects.filter(state=State.PARKED).update(
            received_at=Now() - timedelta(hours=1)
        )

    def run(self, capsys, *arguments):
        call_command("inbox_stats", *arguments)
        return capsys.readouterr().out

    def test_json(self, capsys):
        document = json.loads(self.run(capsys, "--json", "--by", "group"))
        assert (document["v"], document["command"]) == (1, "inbox_stats")
        assert document["at"].endswith("Z")
        totals = document["totals"]
        assert 3600 <= totals.pop("oldest") < 3700
        assert totals == {
            "received": 0,
            "processed": 2,
            "parked": 1,
            "dead": 1,
            "quarantined": 1,
            "discarded": 0,
            "duplicates": 1,
            "processed_per_minute": 0.033,
        }
        assert [group["name"] for group in document["groups"]] == ["g", "h"]
        assert [group["processed"] for group in document["groups"]] == [2, 0]
        assert [group["quarantined"] for group in document["groups"]] == [0, 1]
        assert document["groups"][1]["oldest"] is None

    @pytest.mark.parametrize(
        ("by", "names"),
        [
            ("state", ["dead", "parked", "processed", "quarantined"]),
            ("topic", ["", "bad", "good"]),
        ],
    )
    def test_groups(self, capsys, by, names):
        document = json.loads(self.run(capsys, "--json", "--by", by))
        assert [group["name"] for group in document["groups"]] == names

    def test_since(self, capsys):
        document = json.loads(self.run(capsys, "--json", "--since", "3h"))
        assert document["totals"]["processed"] == 3

    def test_text(self, capsys):
        head, *lines = self.run(capsys).splitlines()
        assert head.split()[:3] == ["state", "received", "processed"]
        assert lines[-1].split()[:5] == ["total", "0", "2", "1", "1"]

    @pytest.mark.parametrize("since", ["1", "0s", "1w", "-1s"])
    def test_a_span_has_a_unit(self, since):
        with pytest.raises(CommandError, match="duration"):
            call_command("inbox_stats", f"--since={since}")


def test_inbox_imports_only_the_open_part_of_outbox():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                part = name.split(".")
                assert part[0] != "outbox" or part[1:2] in (["wire"], ["runtime"]), (path, name)


def test_no_module_is_longer_than_300_lines():
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path


def test_importing_the_package_and_its_handlers_needs_no_models():
    code = """
import sys, inbox
from inbox import Delivery, Disposition, Message, Reject, Retry, handler
handler("t", group="g")(print)
assert "inbox.models" not in sys.modules
assert set(dir(inbox)) == set(inbox.__all__)
try:
    inbox.nothing
except AttributeError as error:
    assert "nothing" in str(error)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
