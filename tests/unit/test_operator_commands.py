"""What every operators' command has: options, answers, confirmation."""

import argparse
import datetime as dt
import io
import json
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import override_settings

from outbox.runtime import commands
from outbox.runtime.commands import OperatorCommand


class Command(OperatorCommand):
    def handle(self, *args, **options):
        if options["database"] == "sqlite":
            raise CommandError("No such thing.", returncode=commands.NOTHING_MATCHED)
        self.answer(options["database"], {"at_noon": dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)})


def run(*arguments):
    out = io.StringIO()
    call_command(Command(stdout=out, stderr=io.StringIO()), *arguments)
    return out.getvalue()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        ("7d", timedelta(days=7)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text, meant):
    assert commands.duration(text) == meant
    assert commands.moment(text) == meant


@pytest.mark.parametrize("text", ["", "5", "0s", "-1h", "1w", "1.5h", "h"])
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(argparse.ArgumentTypeError, match="30s"):
        commands.duration(text)


def test_a_time_with_a_zone_is_that_moment():
    noon = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
    assert commands.moment("2026-01-31T13:00+01:00") == noon


@override_settings(TIME_ZONE="Europe/Berlin")
def test_a_time_without_a_zone_is_in_the_project_s_own():
    noon = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
    assert commands.moment("2026-01-31T13:00") == noon


@pytest.mark.parametrize("text", ["yesterday", "2026-02-31T00:00Z"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=text):
        commands.moment(text)


def test_an_answer_names_its_command_database_and_time():
    document = json.loads(run("--database", "default", "--json"))
    assert document.pop("at").endswith("Z")
    assert document == {
        "v": 1,
        "command": "test_operator_commands",
        "database": "default",
        "at_noon": "2026-01-31T12:00:00.000Z",
    }


def test_with_json_an_error_is_a_document_too():
    out = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command(Command(stdout=out), "--database", "sqlite", "--json")
    assert caught.value.returncode == commands.NOTHING_MATCHED
    assert json.loads(out.getvalue()) == {
        "v": 1,
        "command": "test_operator_commands",
        "error": {"code": 3, "message": "No such thing."},
    }


def test_a_table_has_its_numbers_to_the_right_and_a_dash_for_what_is_absent():
    out = io.StringIO()
    Command(stdout=out).table(["topic", "age"], [["orders.placed", 7], ["mail", None]])
    assert out.getvalue().splitlines() == [
        "topic          age",
        "orders.placed    7",
        "mail             -",
    ]


def test_without_a_person_a_change_is_not_confirmed(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(CommandError, match="--no-input") as caught:
        Command().confirm(3, ask=True)
    assert caught.value.returncode == commands.USAGE


def test_nobody_is_asked_who_does_not_want_to_be():
    Command().confirm(1_000_000, ask=False)


class Person(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("count", "answer"), [(3, "yes"), (1000, "yes"), (1001, "1001")])
def test_a_person_confirms_with_yes_and_a_large_change_with_its_number(monkeypatch, count, answer):
    monkeypatch.setattr("sys.stdin", Person(answer + "\n"))
    Command(stderr=io.StringIO()).confirm(count, ask=True)
    monkeypatch.setattr("sys.stdin", Person("no\n"))
    with pytest.raises(CommandError, match="nothing was changed"):
        Command(stderr=io.StringIO()).confirm(count, ask=True)
