import logging
from datetime import timedelta

import pytest

from outbox.exceptions import BrokerUnavailable
from outbox.relay.pacing import Pacing


@pytest.fixture
def pacing():
    return Pacing("Relay of broker 'x'", (timedelta(seconds=0.2), timedelta(seconds=1)))


def test_one_line_for_each_change_of_state(pacing, caplog):
    caplog.set_level(logging.INFO, "outbox.relay")
    for outage in ("first", "second"):
        pacing.worked()
        for _ in range(3):
            pacing.failed(BrokerUnavailable(outage))
        pacing.worked()
        pacing.worked()
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _text in found] == ["WARNING", "INFO", "WARNING", "INFO"]
    assert found[0][1] == (
        "Relay of broker 'x': unavailable, will go on when it is back. Nothing is lost. "
        "BrokerUnavailable: first"
    )
    assert found[1][1] == "Relay of broker 'x': working again."
    assert "second" in found[2][1]


def test_idle_waits_double_up_to_the_bound_and_start_again(pacing):
    waits = [pacing.idle(something=False) for _ in range(5)]
    assert waits == [0.2, 0.4, 0.8, 1, 1]
    assert pacing.idle(something=True) == 0
    assert pacing.idle(something=False) == 0.2


def test_pauses_grow_and_end(pacing):
    assert pacing.paused() <= 0
    longest = []
    for _ in range(8):
        pacing.failed(BrokerUnavailable())
        longest.append(pacing._backoff.ceiling(pacing._outages).total_seconds())
        assert pacing.paused() <= longest[-1]
    assert longest == [1, 2, 4, 8, 10, 10, 10, 10]
    pacing.worked()
    pacing.failed(BrokerUnavailable())
    assert pacing.paused() <= 1
