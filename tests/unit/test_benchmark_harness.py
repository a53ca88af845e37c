"""How the benchmarks turn rounds into a ratio."""

from contextlib import contextmanager

import pytest

from benchmarks.harness import COST, QUICK, RATE, Case, Pair, Timing, Wrong, check, measure


def a_case(subject, baseline, *, unit=RATE, count=100, turns=1):
    """A case whose sides are given as the seconds of each turn; and the log of who was asked."""
    log = []

    @contextmanager
    def setup(items):
        def side(name, seconds):
            def turn():
                log.append(name)
                return Timing(items, seconds.pop(0), 0.5)

            return turn

        yield Pair(side("s", list(subject)), side("b", list(baseline)), {"how": "so"}, {"seen": 1})

    return Case("name", "summary", (), count, turns, unit, "ours", "theirs", setup), log


def test_the_ratio_is_the_median_of_the_rounds_ratios_without_the_first_round():
    each, _log = a_case([99, 1, 2, 10], [1, 2, 2, 100])
    result = measure(each, 3, quick=False)
    assert result["ratios"] == [2.0, 1.0, 10.0]
    assert result["ratio"] == 2.0
    assert (result["min"], result["median"], result["max"]) == (10.0, 50.0, 100.0)
    assert result["rounds"] == 3
    assert result["baseline"]["cpu_us"] == 5000.0
    assert (result["settings"], result["facts"]) == ({"how": "so"}, {"seen": 1})


def test_a_cost_is_microseconds_an_item_and_lower_is_better():
    each, _log = a_case([1, 0.3], [1, 0.1], unit=COST, count=1000)
    result = measure(each, 1, quick=False)
    assert (result["median"], result["baseline"]["median"]) == (300.0, 100.0)
    assert (result["ratio"], result["better"]) == (3.0, "lower")


def test_the_sides_change_places_and_a_round_is_the_sum_of_its_turns():
    each, log = a_case([1, 2, 3, 4], [2, 2, 4, 10], turns=2)
    result = measure(each, 1, quick=False)
    assert "".join(log) == "sbbssbbs"
    assert result["ratio"] == 2.0
    assert result["subject"]["items"] == 200


def test_a_quick_run_has_few_items_and_one_turn_and_says_so():
    each, log = a_case([1, 1], [1, 1], turns=10)
    result = measure(each, 1, quick=True)
    assert len(log) == 4
    assert result["subject"]["items"] == QUICK
    assert result["quick"] is True


def test_what_was_found_must_be_what_was_expected():
    check("rows", 3, 3)
    with pytest.raises(Wrong, match="rows: 2, expected 3"):
        check("rows", 2, 3)
