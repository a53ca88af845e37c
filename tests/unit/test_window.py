import datetime as dt
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.brokers.base import Confirm, Status
from outbox.relay.window import Window
from outbox.store import Done, Entry, Failed, Parked
from outbox.wire import Message

RETRY = dt.timedelta(seconds=1)


def entry(seq, key="", size=1, held=False):
    time = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    message = Message(uuid.UUID(int=seq), "t", b"x" * size, "/shop", time, key)
    return Entry(seq, message, held=held)


def judge(entry, error_class, error):
    return Failed(error_class, error, RETRY)


def window(*page, count=100, size=10**6):
    return Window(page, judge, count, size)


def leaving(window):
    """Everything that may leave now, by position."""
    found = []
    while (entry := window.next()) is not None:
        found.append(entry.seq)
    return found


def answer(window, seq, status=Status.ACKED, reason="because"):
    window.take(Confirm(uuid.UUID(int=seq), status, reason))


def test_without_a_key_all_leave_at_once():
    w = window(entry(1), entry(2), entry(3))
    assert leaving(w) == [1, 2, 3]
    for seq in (3, 1, 2):
        answer(w, seq)
    assert w.outcomes == {1: Done(), 2: Done(), 3: Done()}
    assert not w


def test_one_of_a_key_at_a_time():
    w = window(entry(1, "a"), entry(2, "a"), entry(3, "b"), entry(4, "a"))
    assert leaving(w) == [1, 3]
    answer(w, 3)
    assert leaving(w) == []
    answer(w, 1)
    assert leaving(w) == [2]
    answer(w, 2)
    assert leaving(w) == [4]


def test_a_failure_parks_its_key_and_nothing_else():
    w = window(entry(1, "a"), entry(2, "a"), entry(3, "b"), entry(4, "a"), entry(5))
    leaving(w)
    answer(w, 1, Status.NACKED)
    answer(w, 3)
    answer(w, 5, Status.RETURNED)
    assert leaving(w) == []
    assert w.outcomes == {
        1: Failed("nacked", "because", RETRY),
        2: Parked(),
        3: Done(),
        4: Parked(),
        5: Failed("returned", "because", RETRY),
    }
    assert not w
    assert w.doubt == ""


def test_of_an_unknown_one_nothing_is_recorded_and_its_key_stays():
    w = window(entry(1, "a"), entry(2, "a"), entry(3))
    leaving(w)
    answer(w, 1, Status.UNKNOWN, "timed out")
    answer(w, 3)
    assert leaving(w) == []
    assert w.outcomes == {3: Done()}
    assert w.doubt == "timed out"
    assert not w


def test_a_doubt_always_has_a_reason():
    w = window(entry(1))
    leaving(w)
    answer(w, 1, Status.UNKNOWN, "")
    assert w.doubt


def test_held_ones_never_leave():
    w = window(entry(1, "a", held=True), entry(2, "b"), entry(3, "a", held=True))
    assert leaving(w) == [2]
    assert w.outcomes == {1: Parked(), 3: Parked()}


def test_answers_about_others_change_nothing():
    w = window(entry(1), entry(2), count=1)
    leaving(w)
    answer(w, 9)
    answer(w, 2)
    assert (w.outcomes, leaving(w)) == ({}, [])
    answer(w, 1)
    answer(w, 1, Status.NACKED)
    assert (w.outcomes, leaving(w)) == ({1: Done()}, [2])


def test_stop_awaits_what_is_in_flight():
    w = window(entry(1, "a"), entry(2, "a"), entry(3), count=1)
    assert leaving(w) == [1]
    w.stop()
    assert w
    answer(w, 1)
    assert leaving(w) == []
    assert w.outcomes == {1: Done()}
    assert not w


def test_abandon_awaits_nothing():
    w = window(entry(1), entry(2))
    leaving(w)
    w.abandon()
    answer(w, 1)
    assert w.outcomes == {}
    assert not w


def test_a_large_message_goes_alone():
    w = window(entry(1, size=3), entry(2, size=50), entry(3, size=3), size=10)
    assert leaving(w) == [1]
    answer(w, 1)
    assert leaving(w) == [2]
    answer(w, 2)
    assert leaving(w) == [3]


@pytest.mark.parametrize(("size", "first"), [(6, [1, 2]), (5, [1]), (7, [1, 2])])
def test_the_bound_on_bytes_holds(size, first):
    assert leaving(window(entry(1, size=3), entry(2, size=3), entry(3, size=3), size=size)) == first


PAGES = st.lists(
    st.tuples(st.sampled_from(["", "", "a", "b", "c"]), st.integers(0, 9), st.booleans()),
    max_size=25,
)


class Simulation:
    """A page with random answers; each step checks what must hold."""

    def __init__(self, rows, count, size):
        blocked = {key for key, _size, held in rows if held and key}
        page = [entry(n, key, size, key in blocked) for n, (key, size, _) in enumerate(rows, 1)]
        self.by_seq = {entry.seq: entry for entry in page}
        self.count, self.size = count, size
        self.window = window(*page, count=count, size=size)
        self.left, self.answers = [], {}

    def predecessors(self, seq):
        key = self.by_seq[seq].message.key
        return [n for n, other in self.by_seq.items() if n < seq and other.message.key == key]

    def hand_over(self):
        for seq in leaving(self.window):
            self.left.append(seq)
            assert not self.by_seq[seq].held
            if self.by_seq[seq].message.key:
                before = [self.answers.get(other) for other in self.predecessors(seq)]
                assert set(before) <= {Status.ACKED}

    def check_in_flight(self):
        flying = [entry.seq for entry in self.window.in_flight]
        assert set(flying) == set(self.left) - set(self.answers)
        keys = [self.by_seq[seq].message.key for seq in flying if self.by_seq[seq].message.key]
        assert len(keys) == len(set(keys))
        assert 0 < len(flying) <= self.count
        sizes = [len(self.by_seq[seq].message.body) for seq in flying]
        assert sum(sizes) <= self.size or len(flying) == 1
        return flying

    def happen(self, seq, event):
        match event:
            case "stop":
                self.window.stop()
            case "abandon":
                self.window.abandon()
            case "poison":
                self.answers[seq] = Status.NACKED
                self.window.fail(self.by_seq[seq], "ValueError", "")
            case status:
                self.answers[seq] = status
                answer(self.window, seq, status)

    def check_outcomes(self):
        assert leaving(self.window) == []
        assert len(self.left) == len(set(self.left))
        refused = {seq for seq, status in self.answers.items() if status in REFUSED}
        outcomes = self.window.outcomes
        for seq, status in self.answers.items():
            assert (seq in outcomes) is (status is not Status.UNKNOWN)
        for seq, found in outcomes.items():
            if isinstance(found, Done):
                assert self.answers[seq] is Status.ACKED
            elif isinstance(found, Failed):
                assert seq in refused
            else:
                assert self.by_seq[seq].held or refused.intersection(self.predecessors(seq))
        assert bool(self.window.doubt) is (Status.UNKNOWN in self.answers.values())


REFUSED = (Status.NACKED, Status.RETURNED)


@given(PAGES, st.integers(1, 8), st.integers(1, 20), st.data())
def test_any_page_and_any_answers(rows, count, size, data):
    simulation = Simulation(rows, count, size)
    while simulation.window:
        simulation.hand_over()
        seq = data.draw(st.sampled_from(simulation.check_in_flight()))
        simulation.happen(seq, data.draw(st.sampled_from([*Status, "poison", "stop", "abandon"])))
    simulation.check_outcomes()
