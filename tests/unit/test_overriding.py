"""Settings that a test changes for a while."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from inbox.conf import get_settings as inbox_settings
from inbox.testing import override_inbox
from outbox.conf import get_settings
from outbox.testing import override_outbox


def test_some_keys_change_and_the_rest_stays():
    before = get_settings()
    with override_outbox(BATCH_SIZE=7, BACKOFF={"FACTOR": 3}):
        assert get_settings().batch_size == 7
        assert get_settings().backoff.factor == 3
        assert get_settings().source == before.source
        with override_outbox(BACKOFF={"FACTOR": 4}):
            assert (get_settings().batch_size, get_settings().backoff.factor) == (7, 4)
    assert get_settings() == before


def test_dicts_are_merged_at_any_depth_and_all_else_is_replaced():
    memory = "outbox.brokers.memory.MemoryPublisher"
    brokers = {"stream": {"BACKEND": memory, "OPTIONS": {"name": "a"}}}
    with override_outbox(BROKERS=brokers, ROUTES=[("a.*", "stream"), ("*", "default")]):
        with override_outbox(BROKERS={"stream": {"URL": "x"}}, ROUTES=[("*", "stream")]):
            stream = get_settings().brokers["stream"]
            assert (stream.backend, stream.url, stream.options) == (memory, "x", {"name": "a"})
            assert get_settings().routes == (("*", "stream"),)
            assert "default" in get_settings().brokers
        assert get_settings().brokers["stream"].url == ""


@override_outbox(LANES=3)
def test_as_a_decorator():
    assert get_settings().lanes == 3


def test_what_is_no_setting_is_refused_with_the_nearest_match():
    with override_outbox(BATCH_SISE=7), pytest.raises(ImproperlyConfigured, match="BATCH_SIZE"):
        get_settings()


def test_the_inbox_likewise():
    with override_inbox(GROUPS={"g": {"PREFETCH": 3}}):
        with override_inbox(GROUPS={"g": {"BROKER": "b"}, "h": {}}):
            assert inbox_settings().groups["g"].prefetch == 3
            assert sorted(inbox_settings().groups) == ["g", "h"]
        assert inbox_settings().groups["g"].broker == "default"
