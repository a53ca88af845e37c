import importlib
import itertools
import subprocess
import sys
import threading
import time
import uuid

import pytest

from outbox.ids import uuid7
from tests.outbox_support import ROOT

# The package exports the function under the module's name.
module = importlib.import_module("outbox.ids.uuid7")


@pytest.fixture
def clock(monkeypatch):
    """Milliseconds, to be set by the test."""
    now = [1_800_000_000_000]
    monkeypatch.setattr(module.time, "time_ns", lambda: now[0] * 1_000_000)
    return now


def milliseconds(value):
    return value.int >> 80


def test_layout():
    before = time.time_ns() // 1_000_000
    value = module._Generator().next()
    after = time.time_ns() // 1_000_000
    assert before <= milliseconds(value) <= after
    assert value.version == 7
    assert value.variant == uuid.RFC_4122


def test_the_timestamp_of_the_rfc(clock):
    clock[0] = 0x017F22E279B0  # RFC 9562, appendix A.6
    assert str(module._Generator().next()).startswith("017f22e2-79b0-7")


def test_every_random_bit_is_used(clock):
    ones, zeros = 0, ~0
    for _ in range(300):
        value = module._Generator().next().int
        ones, zeros = ones | value, zeros & value
    free = (1 << 128) - 1
    constant = ~(ones & ~zeros) & free
    fixed = (0xFFFFFFFFFFFF << 80) | (0xF << 76) | (1 << 75) | (0b11 << 62)
    assert constant == fixed  # the time, the version, the counter's top bit and the variant


def test_rises_within_a_millisecond(clock):
    generator = module._Generator()
    made = [generator.next() for _ in range(1000)]
    assert made == sorted(made)
    assert len({value.int >> 32 for value in made}) == 1000
    assert {milliseconds(value) for value in made} == {clock[0]}


def test_rises_when_the_clock_steps_back(clock):
    generator = module._Generator()
    made = [generator.next()]
    for step in (+5, -3_600_000, +1, +3_600_000, -1):
        clock[0] += step
        made += [generator.next(), generator.next()]
    assert all(one < other for one, other in itertools.pairwise(made))


def test_a_full_counter_goes_on_in_the_next_millisecond(clock):
    generator = module._Generator()
    generator.next()
    generator._counter = module._COUNTER_LIMIT - 2
    last, first = generator.next(), generator.next()
    assert last < first
    assert milliseconds(first) == milliseconds(last) + 1


def test_threads_share_one_order():
    start = threading.Barrier(4)
    made = [[] for _ in range(4)]

    def make(into):
        start.wait()
        into.extend(uuid7() for _ in range(2000))

    threads = [threading.Thread(target=make, args=(into,)) for into in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(into == sorted(into) for into in made)
    # Without the last 32 bits, which are random in each: the counter alone tells them apart.
    assert len({value.int >> 32 for into in made for value in into}) == 8000


FORK = """
import importlib, os, threading
module = importlib.import_module("outbox.ids.uuid7")
# The clock is behind, so that both would go on from the same counter; and the lock is held.
module._generator.next()
module._generator._millisecond += 3_600_000
module._generator._lock.acquire()
reading, writing = os.pipe()
if os.fork() == 0:
    made = [module.uuid7().int >> 32 for _ in range(100)]
    os.write(writing, " ".join(map(str, made)).encode())
    os._exit(0)
module._generator._lock.release()
mine = {module.uuid7().int >> 32 for _ in range(100)}
os.wait()
theirs = set(map(int, os.read(reading, 65536).split()))
print(len(mine), len(theirs), len(mine & theirs))
"""


def test_a_forked_child_makes_other_ids():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stdout.split() == ["100", "100", "0"]
