"""`inbox_list` and `inbox_show`: which messages there are, and what happened to one."""

import datetime as dt
import io
import json
import uuid
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db.models.functions import Now

from inbox import Delivery, Reject, handler, process, store
from inbox.models import InboxMessage, InboxQuarantine
from inbox.testing import deliver, handlers, override_inbox
from tests.unit.test_inbox_processing import make

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _handlers():
    with handlers():
        for group in ("billing", "mailer"):
            handler("orders.placed", group=group)(work)
            handler("orders.cancelled", group=group)(work)
        yield


def work(message):
    if message.payload == "fail":
        raise ValueError("no stock")
    if message.payload == "bad":
        raise Reject("bad order")


def send(payload="fine", group="mailer", **fields):
    message = make(json.dumps(payload).encode(), **fields)
    deliver(message, group)
    return message


def run(command, *arguments):
    out, err = io.StringIO(), io.StringIO()
    call_command(command, *arguments, stdout=out, stderr=err, no_color=True)
    return out.getvalue(), err.getvalue()


def listed(*arguments):
    document = json.loads(run("inbox_list", "--json", *arguments)[0])
    assert (document["v"], document["command"]) == (1, "inbox_list")
    return document["messages"]


def ids(*arguments):
    return [entry["id"] for entry in listed(*arguments)]


def strings(*messages):
    return [str(message.id) for message in messages]


class TestList:
    def test_the_newest_come_first_and_the_limit_says_so(self):
        messages = [send() for _ in range(3)]
        assert ids() == strings(*reversed(messages))
        assert ids("--order=received") == strings(*messages)
        out = json.loads(run("inbox_list", "--json", "--limit=2")[0])
        assert (len(out["messages"]), out["truncated"]) == (2, True)
        assert json.loads(run("inbox_list", "--json", "--limit=3")[0])["truncated"] is False
        assert "--limit" in run("inbox_list", "--limit=2")[1]

    def test_a_document_has_the_keys_of_the_docs(self):
        message = send("fail")
        (entry,) = listed()
        assert entry.pop("received_at").endswith("Z")
        assert entry.pop("next_attempt_at").endswith("Z")
        assert entry == {
            "id": str(message.id),
            "group": "mailer",
            "topic": "orders.placed",
            "key": "42",
            "source": "/shop",
            "state": "parked",
            "attempts": 1,
            "max_attempts": 10,
            "processed_at": None,
            "handler": f"{__name__}.work",
            "error": {"class": "ValueError", "message": "no stock"},
            "content_type": "application/json",
            "size": 6,
            "fingerprint": bytes(InboxMessage.objects.get().fingerprint).hex(),
            "has_body": True,
            "duplicates": 0,
            "database": "default",
        }

    def test_a_processed_message_has_no_body_and_no_error(self):
        send()
        (entry,) = listed()
        assert (entry["has_body"], entry["size"], entry["error"]) == (False, None, None)

    def test_each_selector_narrows(self):
        fine = send()
        failed = send("fail", topic="orders.cancelled", key="7")
        dead = send("bad", group="billing")
        assert ids("--state=processed") == strings(fine)
        assert ids("--state=parked", "--state=dead") == strings(dead, failed)
        assert ids("--topic=orders.c*") == strings(failed)
        assert ids("--topic=orders.placed") == strings(dead, fine)
        assert ids("--topic=orders.?ancelle[cd]", "--topic=orders.x") == strings(failed)
        assert ids("--topic=orders_placed", "--topic=ORDERS.*") == []
        assert ids("--key=7") == strings(failed)
        assert ids("--group=billing") == strings(dead)
        assert ids("--error=Reject") == strings(dead)
        assert ids(f"--id={fine.id}", f"--id={dead.id}") == strings(dead, fine)
        assert ids("--state=parked", "--group=billing") == []

    def test_the_time_of_arrival_is_half_open(self):
        old, new = send(), send()
        InboxMessage.objects.filter(message_id=old.id).update(received_at=Now() - timedelta(days=1))
        assert ids("--since=2h") == strings(new)
        assert ids("--until=2h") == strings(old)
        at = InboxMessage.objects.get(message_id=old.id).received_at.isoformat()
        assert ids(f"--since={at}") == strings(new, old)
        assert ids(f"--until={at}") == []

    def test_ids_come_from_a_file_or_the_input(self, tmp_path, monkeypatch):
        first, second, _third = send(), send(), send()
        (tmp_path / "ids").write_text(f"{first.id}\n\n{second.id}\n")
        assert ids(f"--ids-from={tmp_path / 'ids'}") == strings(second, first)
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{first.id}\n"))
        assert ids("--ids-from=-") == strings(first)
        (tmp_path / "empty").write_text("")
        assert ids(f"--ids-from={tmp_path / 'empty'}") == []

    def test_what_is_due_first_and_what_failed_most_come_first(self):
        later, sooner, done = send("fail"), send("fail"), send()
        InboxMessage.objects.filter(message_id=later.id).update(
            next_attempt_at=Now() + timedelta(days=1), attempts=5
        )
        assert ids("--order=due") == strings(sooner, later, done)
        assert ids("--order=-attempts")[0] == str(later.id)

    @pytest.mark.parametrize(
        ("body", "headers", "why"),
        [
            (b"no json", None, "JSON"),
            (b"{}", {}, "missing"),
            (b"[" + b"1," * 5_000_000 + b"1]", None, "MAX_BODY"),
        ],
        ids=["no json", "no headers", "huge"],
    )
    def test_what_could_not_be_read_is_found_in_quarantine(self, body, headers, why):
        delivery = Delivery.of(make(body), "mailer")
        if headers is not None:
            delivery = Delivery("mailer", headers, body)
        process(delivery)
        send()
        (entry,) = listed("--state=quarantined")
        assert (entry["state"], entry["group"]) == ("quarantined", "mailer")
        assert (entry["error"]["class"], entry["size"]) == ("unreadable", len(body))
        assert why.lower() in entry["error"]["message"].lower()
        table = run("inbox_list", "--state=quarantined")[0]
        assert "unreadable" in table
        assert [e["state"] for e in listed()] == ["processed", "quarantined"]

    def test_a_conflict_names_both_fingerprints(self):
        first = send("one")
        send("two", id=first.id)
        conflict, taken = listed(f"--id={first.id}")
        assert (conflict["state"], taken["state"]) == ("quarantined", "processed")
        assert conflict["known_fingerprint"] == taken["fingerprint"] != conflict["fingerprint"]

    def test_a_quarantined_delivery_has_no_key_and_no_error_class(self):
        process(Delivery("mailer", {}, b""))
        assert listed("--state=quarantined", "--key=42") == []
        assert listed("--error=unreadable") == []

    def test_the_table_is_for_people(self):
        message = send("bad", key="")
        head, row = run("inbox_list")[0].splitlines()
        assert head.split() == [
            *("received_at", "group", "state", "attempts", "topic", "key", "id", "error")
        ]
        assert row.split()[1:] == [
            *("mailer", "dead", "1", "orders.placed", "-", str(message.id), "Reject")
        ]

    def test_fields_choose_columns_and_keys(self):
        send()
        assert listed("--fields=state,group") == [{"state": "processed", "group": "mailer"}]
        assert run("inbox_list", "--fields=state,group")[0].split() == [
            *("state", "group", "processed", "mailer")
        ]

    def test_json_lines_are_one_object_a_message(self):
        messages = [send(), send()]
        lines = run("inbox_list", "--json-lines")[0].splitlines()
        assert [json.loads(line)["id"] for line in lines] == strings(*reversed(messages))

    def test_what_came_from_outside_does_not_steer_the_terminal(self):
        send("bad", key="\x1b[2J\n")
        assert "\\x1b[2J\\n" in run("inbox_list")[0]

    @pytest.mark.parametrize("pattern", ["[z-a]", "t.[\\]", "[[:x]", "[a-c-e]"])
    def test_a_pattern_that_a_database_would_refuse_matches_nothing(self, pattern):
        send()
        assert run("inbox_list", f"--topic={pattern}")[1] == "Nothing matches.\n"

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["--state=broken"], 1),
            (["--id=42"], 1),
            (["--limit=0"], 1),
            (["--fields=colour"], 1),
            (["--ids-from=/absent"], 2),
            (["--fail-on-empty"], 3),
        ],
    )
    def test_a_wrong_question_is_refused(self, arguments, code):
        with pytest.raises(CommandError) as caught:
            run("inbox_list", *arguments)
        # Of argparse's own errors the shell sees 2; `call_command` raises them with 1.
        assert caught.value.returncode == code

    def test_nothing_found_is_no_error(self):
        out, err = run("inbox_list")
        assert (out, err) == ("", "Nothing matches.\n")

    @pytest.mark.django_db(databases=["default", "sqlite"])
    def test_all_databases_of_the_inbox_are_listed_by_time(self):
        with override_inbox(GROUPS={"billing": {"DATABASE": "sqlite"}}):
            first, second = send(), send(group="billing")
            out = json.loads(run("inbox_list", "--json")[0])
            assert out["database"] is None
            found = {entry["id"]: entry["database"] for entry in out["messages"]}
            assert found == {str(first.id): "default", str(second.id): "sqlite"}
            assert ids("--database=sqlite") == strings(second)


class TestShow:
    def test_one_timeline_a_group(self):
        message = make(b'"fail"')
        for group in ("mailer", "billing"):
            deliver(message, group)
        out = run("inbox_show", str(message.id))[0]
        assert out.index("billing: orders.placed parked") < out.index("mailer: orders.placed")
        assert out.count("attempt 1: ValueError: no stock") == 2
        assert "payload" not in out
        only = run("inbox_show", str(message.id), "--group=mailer")[0]
        assert "billing" not in only

    def test_a_payload_does_not_steer_the_terminal(self):
        message = make(b'{"half": "\\ud800", "steers": "\\u009b2J"}', topic="unhandled")
        deliver(message, "mailer")
        out = run("inbox_show", str(message.id), "--payload")[0]
        assert '"half": "\\ud800"' in out
        assert '"steers": "\\x9b2J"' in out

    def test_as_json_with_headers_and_payload(self):
        message = send("fail")
        document = json.loads(
            run("inbox_show", str(message.id), "--json", "--headers", "--payload")[0]
        )
        (shown,) = document["messages"]
        assert shown["message"]["state"] == "parked"
        assert (shown["payload"], shown["headers"]) == ("fail", {"traceparent": "00-1"})
        assert [step["event"] for step in shown["timeline"]] == ["received", "failed", "parked"]
        assert shown["timeline"][0]["at"].endswith("Z")
        plain = json.loads(run("inbox_show", str(message.id), "--json")[0])["messages"][0]
        assert set(plain) == {"message", "timeline", "quarantined"}

    @pytest.mark.parametrize(
        ("body", "content_type", "shown"),
        [
            (b"text", "text/plain", "text"),
            (b"\xff\x00", "application/octet-stream", {"base64": "/wA="}),
        ],
    )
    def test_a_payload_that_is_no_json_is_shown_too(self, body, content_type, shown):
        message = make(body, content_type=content_type, topic="unhandled")
        deliver(message, "mailer")
        document = json.loads(run("inbox_show", str(message.id), "--json", "--payload")[0])
        assert document["messages"][0]["payload"] == shown

    def test_evidence_of_other_content_has_both_fingerprints(self):
        first = send("one")
        send("two", id=first.id)
        kept = InboxQuarantine.objects.get()
        out = run("inbox_show", str(first.id))[0]
        assert bytes(kept.fingerprint).hex() in out
        assert bytes(kept.known_fingerprint).hex() in out
        (shown,) = json.loads(run("inbox_show", str(first.id), "--json")[0])["messages"]
        assert shown["quarantined"][0]["reason"] == "conflict"

    @override_inbox(MAX_BODY=3)
    def test_a_delivery_that_no_group_took_in_is_shown(self):
        message = make(b"12345")
        process(Delivery.of(message, "mailer"))
        out = run("inbox_show", str(message.id), "--headers")[0]
        assert "mailer: orders.placed quarantined" in out
        assert "MAX_BODY" in out

    def test_a_retry_by_a_person_is_in_the_timeline(self):
        message = send("bad")
        list(store.retry(InboxMessage.objects.all(), actor="alice", reason="JIRA-12"))
        assert "was dead after attempt 1, by alice, JIRA-12" in run("inbox_show", message.id)[0]

    def test_an_unknown_id_is_an_error(self):
        with pytest.raises(CommandError, match="inbox_list") as caught:
            run("inbox_show", str(uuid.uuid4()))
        assert caught.value.returncode == 1

    def test_with_an_aware_time_a_project_without_zones_is_asked_in_its_own(self, settings):
        settings.USE_TZ = False
        send()
        now = dt.datetime.now(dt.UTC)
        assert len(listed(f"--since={(now - timedelta(hours=1)).isoformat()}")) == 1
        assert listed(f"--since={(now + timedelta(hours=1)).isoformat()}") == []
