from datetime import timedelta

import pytest

from outbox.runtime.backoff import Backoff

SECOND = timedelta(seconds=1)


def test_doubles_up_to_the_bound():
    backoff = Backoff(base=SECOND, factor=2, max=10 * SECOND)
    waits = [backoff.ceiling(attempts) / SECOND for attempts in range(1, 7)]
    assert waits == [1, 2, 4, 8, 10, 10]


def test_a_patient_message_does_not_overflow():
    assert Backoff(factor=10.5).ceiling(10**6) == timedelta(hours=1)


def test_the_bound_holds_exactly():
    longest = timedelta(microseconds=1_000_001)
    assert Backoff(base=SECOND, max=longest).ceiling(2) == longest


def test_jitter_is_full():
    backoff = Backoff(base=100 * SECOND, max=100 * SECOND)
    waits = [backoff.delay(1) / SECOND for _ in range(500)]
    assert all(0 <= wait <= 100 for wait in waits)
    # Each of these fails about once in 10**22 runs.
    assert min(waits) < 10
    assert max(waits) > 90


@pytest.mark.parametrize(
    "values",
    [
        {"base": timedelta(0)},
        {"base": -SECOND},
        {"base": 2 * SECOND, "max": SECOND},
        {"factor": 0.5},
    ],
)
def test_bounds_that_make_no_sense(values):
    with pytest.raises(ValueError, match="0 < BASE <= MAX and FACTOR >= 1"):
        Backoff(**values)
