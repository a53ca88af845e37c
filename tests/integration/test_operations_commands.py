"""outbox_list, outbox_show, outbox_retry as an operator and a script see them."""

import getpass
import io
import json
import re
import uuid
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, InterfaceError, transaction

from outbox import Draft, history, publish_many
from outbox.management import changes
from outbox.models import OutboxEvent, OutboxMessage, OutboxTodo, TodoState
from outbox.store import Done, Failed, Parked, stores

DATABASES = ["default", "sqlite"]
pytestmark = pytest.mark.django_db(databases=DATABASES)

LATER = timedelta(hours=1)
HEAD = {"v", "command", "database", "at"}
M = {
    "id", "topic", "key", "state", "broker", "address", "attempts", "max_attempts", "created_at",
    "due_at", "published_at", "age", "error", "content_type", "size", "fingerprint", "database",
}  # fmt: skip


class Output:
    def __init__(self, out, err, code):
        self.out, self.err, self.code = out, err, code

    @property
    def json(self):
        return json.loads(self.out)


def run(name, *args):
    """What the command says, and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command(name, *map(str, args), stdout=out, stderr=err)
    except CommandError as error:
        return Output(out.getvalue(), err.getvalue() + str(error), error.returncode)
    return Output(out.getvalue(), err.getvalue(), 0)


@pytest.fixture(params=["default", "sqlite"])
def sent(request, settings):
    """One message in each state, by its name."""
    settings.OUTBOX = settings.OUTBOX | {"MAX_ATTEMPTS": 3}
    using = request.param
    names = ("pending", "retrying", "dead", "parked", "published")
    with transaction.atomic(using=using):
        found = publish_many(
            [
                Draft("orders.placed", {"n": n}, key="k" if n in (2, 3) else "", headers={"h": "1"})
                for n in range(5)
            ],
            using=using,
        )
    rows = OutboxMessage.objects.using(using).in_bulk([m.id for m in found], field_name="id")
    sent = dict(zip(names, found, strict=True))
    seqs = {name: rows[message.id].seq for name, message in sent.items()}
    held = stores[using].acquire("default", 0, 1, uuid.uuid4(), LATER)
    outcomes = {
        seqs["retrying"]: Failed("nacked", "no room", LATER),
        seqs["dead"]: Failed("returned", "nobody is bound", None),
        seqs["parked"]: Parked(),
        seqs["published"]: Done(),
    }
    stores[using].settle(held, outcomes, LATER)
    return Sent(using, {name: message.id for name, message in sent.items()}, seqs)


class Sent:
    def __init__(self, using, ids, seqs):
        self.using, self.ids, self.seqs = using, ids, seqs
        self.names = {str(id_): name for name, id_ in ids.items()}

    def __call__(self, command, *args):
        return run(command, *args, "--database", self.using)

    def state(self, name):
        return history(self.ids[name], self.using).state


class TestList:
    def test_a_table_newest_first(self, sent):
        lines = sent("outbox_list").out.splitlines()
        assert lines[0].split() == ["id", "state", "topic", "key", "attempts", "age", "error"]
        assert [line.split()[1] for line in lines[1:]] == [
            "published", "parked", "dead", "retrying", "pending",
        ]  # fmt: skip
        dead = next(line for line in lines if " dead " in line).split()
        assert (dead[0], dead[3], dead[4], dead[6]) == (
            str(sent.ids["dead"]), "k", "1/3", "returned",
        )  # fmt: skip

    def test_json(self, sent):
        found = sent("outbox_list", "--json").json
        assert set(found) == {*HEAD, "messages", "truncated"}
        assert (found["command"], found["database"]) == ("outbox_list", sent.using)
        by_state = {one["state"]: one for one in found["messages"]}
        assert {state: one["id"] for state, one in by_state.items()} == {
            name: str(id_) for name, id_ in sent.ids.items()
        }
        dead = by_state["dead"]
        assert set(dead) == M
        assert dead["error"] == {"class": "returned", "message": "nobody is bound"}
        assert (dead["attempts"], dead["max_attempts"], dead["key"]) == (1, 3, "k")
        assert (dead["broker"], dead["address"], dead["size"]) == ("default", {}, 7)
        assert re.fullmatch(r"[0-9a-f]{32}", dead["fingerprint"])
        assert dead["created_at"].endswith("Z")
        assert by_state["pending"]["error"] is None
        assert by_state["pending"]["published_at"] is None
        assert by_state["published"]["published_at"].endswith("Z")
        assert 0 <= dead["age"] < 600

    @pytest.mark.parametrize(
        ("args", "expected"),
        [
            (["--state", "dead", "--state", "retrying"], ["dead", "retrying"]),
            (["--error", "nacked"], ["retrying"]),
            (["--key", "k", "--order", "created"], ["dead", "parked"]),
            (["--limit", "2"], ["published", "parked"]),
            (["--since", "1h", "--topic", "orders.*", "--limit", "1"], ["published"]),
            (["--until", "1h"], []),
            (["--broker", "stream"], []),
        ],
    )
    def test_selections(self, sent, args, expected):
        found = [json.loads(x) for x in sent("outbox_list", "--json-lines", *args).out.splitlines()]
        assert [sent.names[one["id"]] for one in found] == expected

    def test_it_says_when_there_are_more(self, sent):
        assert sent("outbox_list", "--json", "--limit", "4").json["truncated"] is True
        assert sent("outbox_list", "--json", "--limit", "5").json["truncated"] is False
        assert "more than 4" in sent("outbox_list", "--limit", "4").err

    def test_fields(self, sent):
        lines = sent("outbox_list", "--state", "dead", "--fields", "topic,size").out.splitlines()
        assert [line.split() for line in lines] == [["topic", "size"], ["orders.placed", "7"]]
        refused = sent("outbox_list", "--fields", "topic,nope")
        assert (refused.code, "nope" in refused.err) == (2, True)

    def test_nothing(self):
        assert run("outbox_list").code == 0
        empty = run("outbox_list", "--fail-on-empty", "--json")
        assert (empty.code, empty.json["messages"]) == (3, [])

    @pytest.mark.parametrize("args", [["--limit", "0"], ["--id", "x"], ["--state", "nope"]])
    def test_a_wrong_value(self, args):
        with pytest.raises(CommandError):
            call_command("outbox_list", *args)


class TestShow:
    def test_text(self, sent):
        lines = sent("outbox_show", sent.ids["dead"]).out.splitlines()
        assert f"id            {sent.ids['dead']}" in lines
        assert "state         dead" in lines
        assert lines[-2].split()[1:] == ["created"]
        assert lines[-1].split(maxsplit=1)[1] == "dead       attempt 1: returned: nobody is bound"

    def test_json(self, sent):
        found = sent("outbox_show", sent.ids["dead"], "--json").json
        assert set(found) == {*HEAD, "message", "timeline"}
        assert set(found["message"]) == M
        assert [step["event"] for step in found["timeline"]] == ["created", "dead"]
        assert found["timeline"][1]["detail"] == "attempt 1: returned: nobody is bound"

    def test_payload_and_headers_only_when_asked_for(self, sent):
        found = sent("outbox_show", sent.ids["dead"], "--json", "--payload", "--headers").json
        assert (found["payload"], found["headers"]) == ({"n": 2}, {"h": "1"})
        assert '"n"' not in sent("outbox_show", sent.ids["dead"]).out

    @pytest.mark.parametrize(
        ("body", "shown"), [(b"\xff", {"base64": "/w=="}), ("für".encode(), "für")]
    )
    def test_bytes_are_text_or_base64(self, body, shown):
        with transaction.atomic():
            (one,) = publish_many([Draft("t", body, content_type="image/png")])
        assert run("outbox_show", one.id, "--json", "--payload").json["payload"] == shown

    def test_none(self):
        found = run("outbox_show", uuid.uuid4(), "--json")
        assert (found.code, found.json["error"]["code"]) == (1, 1)
        assert "no message" in found.json["error"]["message"]


class TestRetry:
    def test_dead_ones(self, sent):
        found = sent("outbox_retry", "--state", "dead", "--no-input", "--reason", "JIRA-12")
        assert (found.code, found.out) == (0, "retried 1\n")
        assert sent.state("dead") == "retrying"
        event = OutboxEvent.objects.using(sent.using).get(name="retried")
        assert (event.actor, event.reason) == (getpass.getuser(), "JIRA-12")

    def test_the_impact_is_shown_first(self, sent):
        found = sent("outbox_retry", "--all", "--dry-run")
        assert found.err.startswith("3 messages, created ")
        assert [line.split()[2] for line in found.err.splitlines()[1:]] == [
            "retrying", "dead", "parked",
        ]  # fmt: skip
        assert found.out == ""
        assert not OutboxEvent.objects.using(sent.using).filter(name="retried").exists()

    def test_json(self, sent):
        found = sent(
            "outbox_retry",
            "--key",
            "k",
            "--no-input",
            "--json",
            "--actor",
            "alice",
            "--reason",
            "r",
        )
        assert found.code == 0
        assert {key: found.json[key] for key in found.json.keys() - HEAD} == {
            "matched": 2,
            "changed": 1,
            "skipped": [
                {
                    "id": str(sent.ids["parked"]),
                    "reason": "waits behind an earlier message of its key",
                }
            ],
            "skipped_count": 1,
            "failed": [],
            "failed_count": 0,
            "dry_run": False,
            "actor": "alice",
            "reason": "r",
        }

    def test_dry_run_as_json(self, sent):
        found = sent("outbox_retry", "--all", "--dry-run", "--json")
        assert (found.json["matched"], found.json["changed"], found.json["dry_run"]) == (3, 0, True)
        assert sent.state("dead") == "dead"

    def test_by_id_a_published_one_is_skipped_and_an_unknown_one_has_failed(self, sent):
        unknown = uuid.uuid4()
        ids = [arg for id_ in (sent.ids["published"], unknown) for arg in ("--id", id_)]
        found = sent("outbox_retry", *ids, "--no-input", "--json")
        assert found.code == 4
        assert found.json["skipped"] == [
            {"id": str(sent.ids["published"]), "reason": "already published"}
        ]
        assert found.json["failed"] == [{"id": str(unknown), "error": "no such message"}]
        assert sent("outbox_retry", *ids[:2], "--no-input").out == (
            "retried 0, skipped 1 (already published)\n"
        )

    def test_ids_from_a_file_and_from_standard_input(self, sent, tmp_path, monkeypatch):
        file = tmp_path / "ids"
        file.write_text(f"{sent.ids['dead']}\n\n{sent.ids['retrying']}\n")
        assert sent("outbox_retry", "--ids-from", file, "--no-input").out == "retried 2\n"
        monkeypatch.setattr("sys.stdin", io.StringIO(str(sent.ids["dead"])))
        assert sent("outbox_retry", "--ids-from", "-", "--no-input").out == "retried 1\n"
        file.write_text("nonsense")
        refused = sent("outbox_retry", "--ids-from", file, "--no-input")
        assert (refused.code, "no message id" in refused.err) == (2, True)
        file.write_text("")
        assert sent("outbox_retry", "--ids-from", file, "--no-input").code == 2

    def test_without_a_selection_nothing_happens(self, sent):
        found = sent("outbox_retry", "--no-input")
        assert (found.code, "--all" in found.err) == (2, True)
        assert sent.state("dead") == "dead"

    def test_where_nobody_can_confirm_nothing_happens(self, sent, monkeypatch):
        monkeypatch.setattr("sys.stdin", io.StringIO())
        found = sent("outbox_retry", "--all")
        assert (found.code, "--no-input" in found.err) == (2, True)
        assert sent.state("dead") == "dead"

    def test_delay_and_attempts(self, sent):
        sent("outbox_retry", "--state", "dead", "--no-input", "--delay", "2h", "--reset-attempts")
        found = history(sent.ids["dead"], sent.using)
        assert found.attempts == 0
        assert timedelta(hours=1.9) < found.due_at - found.events[-1].at < timedelta(hours=2.1)

    def test_in_batches_each_a_transaction_of_its_own(self, monkeypatch):
        with transaction.atomic():
            publish_many([Draft("t", None) for _ in range(25)])
        OutboxTodo.objects.update(state=TodoState.DEAD)
        monkeypatch.setattr(changes, "BATCH", 10)
        calls, real = [], changes.ChangeCommand.__subclasses__()[0].change

        def change(self, using, positions, options):
            calls.append(len(positions))
            if len(calls) == 2:
                raise DatabaseError("gone")
            return real(self, using, positions, options)

        monkeypatch.setattr(changes.ChangeCommand.__subclasses__()[0], "change", change)
        found = run("outbox_retry", "--all", "--no-input", "--json")
        assert calls == [10, 10, 5]
        assert (found.code, found.json["matched"], found.json["changed"]) == (4, 25, 15)
        assert found.json["failed_count"] == 10
        assert OutboxTodo.objects.filter(state=TodoState.DEAD).count() == 10

    def test_a_database_that_is_gone_ends_it_with_a_report_of_what_was_done(self, monkeypatch):
        with transaction.atomic():
            publish_many([Draft("t", None) for _ in range(25)])
        OutboxTodo.objects.update(state=TodoState.DEAD)
        monkeypatch.setattr(changes, "BATCH", 10)
        real = changes.ChangeCommand.__subclasses__()[0].change

        def gone(*_args):
            raise InterfaceError("connection already closed")

        def change(self, using, positions, options):
            monkeypatch.setattr(changes, "load", gone)
            monkeypatch.setattr(changes.ChangeCommand.__subclasses__()[0], "change", gone)
            return real(self, using, positions, options)

        monkeypatch.setattr(changes.ChangeCommand.__subclasses__()[0], "change", change)
        found = run("outbox_retry", "--all", "--no-input")
        assert (found.code, found.out) == (4, "retried 10\n")
        assert found.err.endswith("Stopped after 10 of 25 messages: connection already closed")

    def test_a_signal_stops_it_between_two_batches(self, monkeypatch):
        with transaction.atomic():
            publish_many([Draft("t", None) for _ in range(25)])
        OutboxTodo.objects.update(state=TodoState.DEAD)
        monkeypatch.setattr(changes, "BATCH", 10)
        answers = iter([False, True])
        monkeypatch.setattr(changes.StopSignal, "is_set", lambda _: next(answers))
        found = run("outbox_retry", "--all", "--no-input")
        assert (found.code, found.out) == (4, "retried 10\n")
        assert found.err.endswith("Stopped after 10 of 25 messages.")

    def test_nothing_matches(self):
        assert run("outbox_retry", "--all", "--no-input").code == 0
        assert run("outbox_retry", "--all", "--no-input", "--fail-on-empty").code == 3
