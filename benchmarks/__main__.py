"""python -m benchmarks [NAME ... | all] [--rounds N] [--quick] [--json FILE] [--markdown FILE]

Without names: lists the cases. DATABASE_URL, RABBITMQ_URL and KAFKA_BOOTSTRAP_SERVERS name the
servers; `make bench` starts what they do not name.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import django

OK, FAILED, USAGE = 0, 1, 2


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for; 1 if a case failed, or was named and could not run."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    django.setup()

    from benchmarks import cases, report
    from benchmarks.harness import CASES

    cases.load()
    parser = _parser()
    asked = parser.parse_args(arguments)
    if unknown := set(asked.names) - {*CASES, "all"}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(CASES)}, all")
    if asked.rounds < 1:
        parser.error("--rounds must be at least 1")
    if asked.read:
        results: report.Results = json.loads(asked.read.read_text())
        code = OK
    elif asked.names:
        results, code = _run(asked.names, asked.rounds, quick=asked.quick)
    else:
        for each in CASES.values():
            print(f"{each.name:<30} {each.summary} Needs {', '.join(each.needs)}.")
        return OK
    if results:
        print(report.text(results))
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    if asked.markdown:
        report.write_markdown(asked.markdown, results)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases, or all; none lists them")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default: 5)")
    parser.add_argument("--quick", action="store_true", help="tiny rounds: do the cases work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write them into this page")
    parser.add_argument(
        "--from",
        dest="read",
        type=Path,
        metavar="FILE",
        help="run nothing: read these",
    )
    return parser


def _run(names: Sequence[str], rounds: int, *, quick: bool) -> tuple[dict[str, Any], int]:
    from benchmarks import report, servers
    from benchmarks.harness import CASES, Wrong, measure

    code = OK
    wanted = list(CASES) if "all" in names else list(dict.fromkeys(names))
    can_run = []
    for name in wanted:
        if missing := servers.absent(CASES[name].needs):
            _say(f"{name}: NOT RUN: {', '.join(missing)} not set")
            code = FAILED if name in names else code
        else:
            can_run.append(name)
    results: dict[str, Any] = {}
    if not can_run:
        return results, code
    with servers.database():
        common = report.circumstances()
        for name in can_run:
            began = time.monotonic()
            try:
                result = measure(CASES[name], rounds, quick=quick)
            except Exception as error:  # noqa: BLE001 - the other cases go on
                if not isinstance(error, Wrong):
                    traceback.print_exc()
                _say(f"{name}: FAILED: {error}")
                code = FAILED
                continue
            result["settings"] = {**servers.durability(), **result["settings"]}
            results[name] = {**result, **common}
            _say(f"{name}: {time.monotonic() - began:.0f} s")
    return results, code


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    # As Ctrl-C: the database is dropped on the way out.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main(sys.argv[1:]))
