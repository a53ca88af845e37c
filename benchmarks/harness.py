"""What a case is, and how its two sides are run against each other."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

T = TypeVar("T")

QUICK: Final = 40
"""Items a turn with ``--quick``: enough to see that a case works, too few to time anything."""


class Wrong(Exception):  # noqa: N818 - reads as `raise Wrong`
    """A round did not do what it should have done, so its time says nothing."""


@dataclass(frozen=True, slots=True)
class Unit:
    """How a number of items and the seconds they took become a figure."""

    name: str
    better: str
    of: Callable[[int, float], float]


RATE: Final = Unit("msg/s", "higher", lambda count, seconds: count / seconds)
COST: Final = Unit("µs", "lower", lambda count, seconds: seconds / count * 1e6)


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one round of one side: how many items, how long, and this process's share of the CPUs."""

    count: int = 0
    seconds: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: Timing) -> Timing:
        return Timing(self.count + other.count, self.seconds + other.seconds, self.cpu + other.cpu)


Side = Callable[[], Timing]
"""Takes one turn: prepares, times, and checks. Raises `Wrong`."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two sides of a case, ready to run; ``settings`` say how, ``facts`` what else was seen."""

    subject: Side
    baseline: Side
    settings: Mapping[str, object] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)


Setup = Callable[[int], AbstractContextManager[Pair]]


@dataclass(frozen=True, slots=True)
class Case:
    """``subject`` and ``baseline`` are texts: what is compared with what."""

    name: str
    summary: str
    needs: tuple[str, ...]
    count: int
    turns: int
    unit: Unit
    subject: str
    baseline: str
    setup: Setup


CASES: Final[dict[str, Case]] = {}


def case(  # noqa: PLR0913 - what there is to say about a case, by name
    *,
    needs: Iterable[str],
    count: int,
    unit: Unit,
    subject: str,
    baseline: str,
    turns: int = 1,
) -> Callable[[Callable[[int], Iterator[Pair]]], Callable[[int], Iterator[Pair]]]:
    """Register a generator that sets up, yields a `Pair` and clears away.

    It is given the items of a turn, ``count`` unless the run is a quick one. Each side has so many
    ``turns`` a round: the shorter they are, the less a restless machine favours one side. The
    function's name is the case's; the first line of its docstring is what a listing says.
    """

    def register(function: Callable[[int], Iterator[Pair]]) -> Callable[[int], Iterator[Pair]]:
        CASES[function.__name__] = Case(
            function.__name__,
            (function.__doc__ or "").partition("\n")[0],
            ("postgres", *needs),
            count,
            turns,
            unit,
            subject,
            baseline,
            contextmanager(function),
        )
        return function

    return register


def timed(count: int, work: Callable[[], object]) -> Timing:
    """Run it once; garbage of what came before is not collected at its expense."""
    gc.collect()
    cpu, began = time.process_time(), time.perf_counter()
    work()
    return Timing(count, time.perf_counter() - began, time.process_time() - cpu)


def timed_each(work: Callable[[T], object], items: Sequence[T]) -> Timing:
    """Run it once for each item, one after the other."""

    def run() -> None:
        for item in items:
            work(item)

    return timed(len(items), run)


def check(what: str, found: object, expected: object) -> None:
    """Raise `Wrong` unless they are equal."""
    if found != expected:
        raise Wrong(f"{what}: {found!r}, expected {expected!r}")


def measure(each: Case, rounds: int, *, quick: bool) -> dict[str, Any]:
    """Both sides by turns; the first round warms up and is dropped. Raises `Wrong`."""
    count, turns = (min(each.count, QUICK), 1) if quick else (each.count, each.turns)
    subject: list[Timing] = []
    baseline: list[Timing] = []
    with each.setup(count) as pair:
        sides = [(pair.subject, subject), (pair.baseline, baseline)]
        for _ in range(rounds + 1):
            for _side, timings in sides:
                timings.append(Timing())
            for _ in range(turns):
                for side, timings in sides:
                    timings[-1] += side()
                # Neither side always profits from what the other has left behind.
                sides.reverse()
    return {
        **_compare(each.unit, subject[1:], baseline[1:]),
        "compared": [each.subject, each.baseline],
        "facts": dict(pair.facts),
        "settings": dict(pair.settings),
        "quick": quick,
    }


def _compare(unit: Unit, subject: list[Timing], baseline: list[Timing]) -> dict[str, Any]:
    # Of each round by itself: two sides that ran one after the other met the same machine.
    pairs = zip(_figures(unit, subject), _figures(unit, baseline), strict=True)
    ratios = [ours / theirs for ours, theirs in pairs]
    figures = _spread(unit, subject)
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        **{name: figures[name] for name in ("median", "min", "max")},
        "unit": unit.name,
        "better": unit.better,
        "subject": figures,
        "baseline": _spread(unit, baseline),
        "rounds": len(ratios),
    }


def _figures(unit: Unit, timings: list[Timing]) -> list[float]:
    return [unit.of(timing.count, timing.seconds) for timing in timings]


def _spread(unit: Unit, timings: list[Timing]) -> dict[str, float]:
    figures = _figures(unit, timings)
    cpu = statistics.median(timing.cpu / timing.count for timing in timings)
    return {
        "median": round(statistics.median(figures), 1),
        "min": round(min(figures), 1),
        "max": round(max(figures), 1),
        "items": timings[0].count,
        "cpu_us": round(cpu * 1e6, 1),
    }
