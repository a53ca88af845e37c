"""What the console publisher shows; that it keeps the contract is in tests/contract."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import sys
import uuid

import pytest

from outbox.brokers.console import ConsolePublisher
from outbox.exceptions import BrokerUnavailable
from outbox.wire import Message


def message(**changes) -> Message:
    fields = {
        "id": uuid.UUID(int=7),
        "topic": "orders.placed",
        "body": '{"to":"Müller","order":7}'.encode(),
        "source": "/shop",
        "time": dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC),
    }
    return Message(**(fields | changes))


def shown(capsys, sent: Message, address=None, **options) -> str:
    with contextlib.closing(ConsolePublisher("default", "", options)) as publisher:
        publisher.open()
        publisher.submit(sent, address or {})
    return capsys.readouterr().out


def test_pretty_is_for_the_eye(capsys):
    lines = shown(capsys, message(key="42")).splitlines()
    assert lines[1] == '  "topic": "orders.placed",'
    assert '    "ce_partitionkey": "42"' in lines
    assert lines[-5:] == ['  "payload": {', '    "to": "Müller",', '    "order": 7', "  }", "}"]


@pytest.mark.parametrize("body", [b"\x1b[2J", b"{", b"\xff"])
def test_what_is_no_json_is_shown_escaped(capsys, body):
    for kind in ("application/json", "text/plain"):
        out = shown(capsys, message(body=body, content_type=kind))
        assert "\x1b" not in out
        assert repr(body).replace("\\", "\\\\") in out


def test_one_line_a_message_for_programs(capsys):
    out = shown(capsys, message(), {"topic": "elsewhere"}, pretty=False)
    assert out.count("\n") == 1
    record = json.loads(out)
    assert (record["topic"], record["body"]) == ("elsewhere", '{"to":"Müller","order":7}')
    assert record["headers"]["ce_type"] == "orders.placed"


def test_a_closed_output_is_an_unavailable_broker(monkeypatch):
    publisher = ConsolePublisher("default", "", {})
    publisher.open()
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    with pytest.raises(BrokerUnavailable, match="Standard output takes nothing more"):
        publisher.submit(message(), {})
    with pytest.raises(BrokerUnavailable, match="not open"):
        publisher.confirms(0)
