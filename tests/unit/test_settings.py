from dataclasses import dataclass
from datetime import timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from outbox import routes
from outbox.conf import OutboxSettings, TargetSettings, get_settings
from outbox.exceptions import UnknownTopic
from outbox.runtime.settings import read

BROKERS = {"default": {"BACKEND": "a.B"}, "stream": {"BACKEND": "a.C"}}


def outbox(**changes):
    return override_settings(OUTBOX={"SOURCE": "/shop", "BROKERS": BROKERS} | changes)


def fault(**changes):
    with outbox(**changes), pytest.raises(ImproperlyConfigured) as caught:
        get_settings()
    return str(caught.value)


def test_defaults():
    with outbox():
        settings = get_settings()
    assert settings == OutboxSettings(source="/shop", brokers=settings.brokers)
    assert settings.brokers["default"].backend == "a.B"
    assert (settings.lease, settings.confirm_timeout) == (
        timedelta(seconds=15),
        timedelta(seconds=10),
    )


def test_missing_setting():
    with override_settings(OUTBOX=None), pytest.raises(ImproperlyConfigured, match="OUTBOX is mis"):
        get_settings()


def test_required_keys():
    with (
        override_settings(OUTBOX={"SOURCE": "/shop"}),
        pytest.raises(ImproperlyConfigured, match=r"OUTBOX\['BROKERS'\] is required"),
    ):
        get_settings()


def test_unknown_key_with_the_nearest_match():
    assert fault(BATCHSIZE=1) == (
        "OUTBOX['BATCHSIZE'] is not a setting. Did you mean 'BATCH_SIZE'?"
    )


def test_unknown_key_without_one_lists_what_is_known():
    assert "OUTBOX['ZZZ'] is not a setting. Known: SOURCE, BROKERS, ROUTES" in fault(ZZZ=1)


def test_unknown_nested_key():
    assert fault(BROKERS={"default": {"BACKEND": "a.B", "ULR": ""}}) == (
        "OUTBOX['BROKERS']['default']['ULR'] is not a setting. Did you mean 'URL'?"
    )
    assert "OUTBOX['BACKOFF']['BAES'] is not a setting. Did you mean 'BASE'?" in fault(
        BACKOFF={"BAES": 1}
    )


def test_missing_nested_key():
    assert fault(BROKERS={"default": {}}) == "OUTBOX['BROKERS']['default']['BACKEND'] is required."


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"BATCH_SIZE": "500"}, "OUTBOX['BATCH_SIZE'] must be of type int, not '500'."),
        ({"BATCH_SIZE": True}, "OUTBOX['BATCH_SIZE'] must be of type int, not True."),
        ({"REQUIRE_TRANSACTION": 1}, "OUTBOX['REQUIRE_TRANSACTION'] must be of type bool, not 1."),
        ({"LEASE": 15}, "OUTBOX['LEASE'] must be of type timedelta, not 15."),
        ({"WAKEUP": "cellery"}, "OUTBOX['WAKEUP'] must be one of 'celery', not 'cellery'."),
        ({"BROKERS": []}, "OUTBOX['BROKERS'] must be a dict with text keys, not []."),
        ({"BROKERS": {1: {}}}, "OUTBOX['BROKERS'] must be a dict with text keys, not {1: {}}."),
        ({"ROUTES": "default"}, "OUTBOX['ROUTES'] must be a list or tuple, not 'default'."),
        ({"ROUTES": [("a",)]}, "OUTBOX['ROUTES'][0] must have 2 items, not 1."),
        ({"ROUTES": [("a", 3)]}, "OUTBOX['ROUTES'][0][1] must be of type str, not 3."),
        ({"POLL": [timedelta(1), 3]}, "OUTBOX['POLL'][1] must be of type timedelta, not 3."),
    ],
)
def test_types(changes, text):
    assert fault(**changes).startswith(text)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"SOURCE": "our shop"}, "SOURCE must be a URI reference"),
        ({"SOURCE": ""}, "SOURCE must be a URI reference"),
        ({"BROKERS": {"stream": {"BACKEND": "a.B"}}}, "must have an entry 'default'"),
        ({"BROKERS": BROKERS | {"x" * 101: {"BACKEND": "a.B"}}}, "at most 100 characters"),
        ({"ROUTES": [("*", "steam")]}, "not in BROKERS. Did you mean 'stream'?"),
        ({"ROUTES": [("*", {"BROKER": "steam"})]}, "not in BROKERS. Did you mean 'stream'?"),
        ({"LEASE": timedelta(seconds=10)}, "must exceed CONFIRM_TIMEOUT"),
        ({"LEASE": timedelta(seconds=11)}, "must exceed CONFIRM_TIMEOUT"),
        ({"CONFIRM_TIMEOUT": timedelta(seconds=14)}, "must exceed CONFIRM_TIMEOUT"),
        ({"CONFIRM_TIMEOUT": timedelta(0)}, "CONFIRM_TIMEOUT must be more than 0"),
        ({"POLL": (timedelta(0), timedelta(1))}, "POLL must be"),
        ({"POLL": (timedelta(2), timedelta(1))}, "POLL must be"),
        ({"LANES": 0}, "LANES must be 1 to 64"),
        ({"LANES": 65}, "LANES must be 1 to 64"),
        ({"BATCH_SIZE": 0}, "BATCH_SIZE must be at least 1"),
        ({"MAX_ATTEMPTS": 0}, "MAX_ATTEMPTS must be at least 1"),
        ({"MAX_BODY": 0}, "MAX_BODY must be at least 1"),
        ({"BACKOFF": {"BASE": timedelta(0)}}, "OUTBOX['BACKOFF']: a backoff needs"),
    ],
)
def test_contradictions(changes, text):
    found = fault(**changes)
    assert found.startswith("OUTBOX")
    assert text in found


def test_a_lease_that_is_just_long_enough():
    with outbox(LEASE=timedelta(seconds=11.5)):
        assert get_settings().lease == timedelta(seconds=11.5)


def test_environment(monkeypatch):
    monkeypatch.setenv("SHOP_URL", "amqp://x")
    options = {"a": "env:SHOP_URL", "ssl": {"ca": "env:SHOP_URL", "names": ["env:SHOP_URL", 1]}}
    broker = {"BACKEND": "a.B", "URL": "env:SHOP_URL", "OPTIONS": options}
    with outbox(BROKERS={"default": broker}):
        found = get_settings().brokers["default"]
    assert found.url == "amqp://x"
    assert found.options == {
        "a": "amqp://x",
        "ssl": {"ca": "amqp://x", "names": ["amqp://x", 1]},
    }


def test_environment_that_lacks_it(monkeypatch):
    monkeypatch.delenv("SHOP_URL", raising=False)
    text = fault(
        BROKERS={"default": {"BACKEND": "a.B", "OPTIONS": {"ssl": {"ca": "env:SHOP_URL"}}}}
    )
    assert text == (
        "OUTBOX['BROKERS']['default']['OPTIONS']['ssl']['ca'] names the environment variable "
        "SHOP_URL, which is not set."
    )


def test_an_override_is_seen_and_undone():
    before = get_settings().batch_size
    with outbox(BATCH_SIZE=7):
        assert get_settings().batch_size == 7
        with outbox(BATCH_SIZE=8):
            assert get_settings().batch_size == 8
        assert get_settings().batch_size == 7
    assert get_settings().batch_size == before


def test_the_first_route_that_matches_wins():
    address = {"exchange": "events"}
    table = [
        ("orders.*", {"BROKER": "stream", "ADDRESS": address}),
        ("orders.placed", "default"),
        ("mail.?", "default"),
    ]
    with outbox(ROUTES=table):
        assert get_settings().routes[0] == ("orders.*", TargetSettings("stream", address))
        assert routes.resolve("orders.placed") == routes.Route("stream", address)
        assert routes.resolve("mail.a") == routes.Route("default")
        with pytest.raises(UnknownTopic, match=r"'mail\.ab'.*OUTBOX\['ROUTES'\]"):
            routes.resolve("mail.ab")


@dataclass
class Sample:
    names: tuple[str, int]
    factor: int | float = 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"NAMES": ("a", "b")}, "SAMPLE['NAMES'][1] must be of type int, not 'b'."),
        ({"NAMES": ("a", 1), "FACTOR": True}, "SAMPLE['FACTOR'] must be of type int, not True."),
        ("x", "SAMPLE must be a dict with text keys, not 'x'."),
    ],
)
def test_reader(value, text):
    with override_settings(SAMPLE=value), pytest.raises(ImproperlyConfigured) as caught:
        read("SAMPLE", Sample)
    assert str(caught.value).startswith(text)
