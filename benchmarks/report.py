"""The results: as a table for people, as Markdown for the docs; and where they were had."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from benchmarks import servers

Results = Mapping[str, Mapping[str, Any]]

BEGIN: Final = "<!-- python -m benchmarks --markdown: from here -->"
END: Final = "<!-- to here -->"

_LIBRARIES: Final = ("django", "psycopg", "kombu", "amqp", "confluent-kafka")


def circumstances() -> dict[str, Any]:
    """What all results of a run have in common."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _LIBRARIES},
            **servers.versions(),
        },
        "machine": {
            "cpus": len(os.sched_getaffinity(0)),
            "cpu model": _cpu_model(),
            "load": round(os.getloadavg()[0], 2),
        },
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def text(results: Results) -> str:
    """For a terminal."""
    lines = []
    for name, result in results.items():
        low, high = min(result["ratios"]), max(result["ratios"])
        better = f"{result['better']} is better"
        lines.append(f"{name}: ratio {result['ratio']} ({low} to {high}), {better}")
        for side, what in zip(("subject", "baseline"), result["compared"], strict=True):
            lines.append(f"  {_figures(result[side], result['unit']):<52} {what}")
        lines += [f"  {fact}: {value}" for fact, value in result["facts"].items()]
    return "\n".join(lines)


def _figures(side: Mapping[str, float], unit: str) -> str:
    spread = f"({side['min']:,.0f} to {side['max']:,.0f})"
    return f"{side['median']:,.0f} {unit} {spread}, CPU {side['cpu_us']:,.0f} µs"


def markdown(results: Results) -> str:
    """Tables for the docs."""
    lines = [
        "| case | ratio | rounds | measured | compared with |",
        "|---|---|---|---|---|",
    ]
    for name, result in results.items():
        low, high = min(result["ratios"]), max(result["ratios"])
        sides = [
            f"{what}: {_figures(result[side], result['unit'])}"
            for side, what in zip(("subject", "baseline"), result["compared"], strict=True)
        ]
        better = f"{result['better']} is better"
        lines.append(
            f"| `{name}` | **{result['ratio']:.2f}** ({better}) | {low:.2f} to {high:.2f} "
            f"| {' | '.join(sides)} |"
        )
    lines += ["", "| case | settings and facts |", "|---|---|"]
    lines += [
        f"| `{name}` | {_pairs({**result['settings'], **result['facts']})} |"
        for name, result in results.items()
    ]
    lines += ["", *_where(results.values())]
    return "\n".join(lines)


def _where(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each set of versions and each machine: results may be of several runs."""
    return list(
        dict.fromkeys(
            f"* {_pairs(result['versions'])}; {_pairs(result['machine'])}; {result['at']}"
            for result in results
        )
    )


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def write_markdown(path: Path, results: Results) -> None:
    """Replace what is between the two marks of the page. Raises `ValueError` without them."""
    page = path.read_text()
    before, begin, rest = page.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no lines {BEGIN!r} and {END!r} to write between")
    path.write_text(f"{before}{BEGIN}\n\n{markdown(results)}\n\n{END}{after}")
