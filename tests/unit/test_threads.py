import threading

import pytest

from outbox.runtime.threads import run_all


def test_all_run_side_by_side_to_their_end():
    together = threading.Barrier(3, timeout=10)
    stop = threading.Event()
    run_all(stop, [together.wait] * 3)
    assert not stop.is_set()


def test_an_error_in_one_ends_the_others_and_is_raised():
    stop = threading.Event()
    ended = []

    def loop():
        ended.append(stop.wait(10))

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_all(stop, [loop, fail, loop])
    assert ended == [True, True]
