"""The benchmarks still run and still check what they time. No timing is judged here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report

ROOT = Path(__file__).resolve().parents[2]

NEEDS = {
    (): ["inbox_inline", "publish_overhead"],
    ("rabbitmq",): [
        "inbox_rabbitmq",
        "relay_rabbitmq",
        "relay_rabbitmq_classic",
        "relay_vs_one_at_a_time",
    ],
    ("kafka_any",): ["relay_kafka", "relay_kafka_vs_one_at_a_time"],
}


def bench(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_every_case_is_listed_and_tested_here():
    done = bench()
    assert done.returncode == 0, done.stderr
    listed = [line.split()[0] for line in done.stdout.splitlines()]
    assert sorted(listed) == sorted(name for names in NEEDS.values() for name in names)


@pytest.mark.postgres
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(
            names, marks=[getattr(pytest.mark, need) for need in needs], id="-".join(needs)
        )
        for needs, names in NEEDS.items()
    ],
)
def test_a_quick_run_of_each_case_passes_its_own_checks(names, tmp_path):
    written = tmp_path / "results.json"
    done = bench(*names, "--quick", "--rounds", "2", "--json", str(written))
    assert done.returncode == 0, done.stderr
    results = json.loads(written.read_text())
    assert list(results) == names
    for result in results.values():
        assert result["ratio"] > 0
        assert result["rounds"] == len(result["ratios"]) == 2
        assert result["subject"]["min"] <= result["median"] <= result["subject"]["max"]
        assert result["baseline"]["items"] >= 1
        assert result["settings"]["fsync"] in ("on", "off")
        assert result["versions"]["postgresql"]
        assert result["quick"]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    done = bench("--from", str(written), "--markdown", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert all(f"| `{name}` |" in text for name in names)


@pytest.mark.parametrize(("names", "code"), [(["relay_rabbitmq"], 1), (["all"], 0)])
def test_a_case_without_its_server_is_not_run_and_fails_only_if_it_was_named(names, code):
    done = bench(*names, DATABASE_URL="", RABBITMQ_URL="", KAFKA_BOOTSTRAP_SERVERS="")
    assert done.returncode == code
    assert "relay_rabbitmq: NOT RUN: DATABASE_URL, RABBITMQ_URL not set" in done.stderr


def test_an_unknown_name_is_a_usage_error():
    done = bench("relay_rabitmq")
    assert done.returncode == 2
    assert "known: " in done.stderr


def test_the_page_shows_what_the_run_wrote():
    results = json.loads((ROOT / "docs/benchmarks.json").read_text())
    assert report.markdown(results) in (ROOT / "docs/benchmarks.md").read_text()
    assert not any(result["quick"] for result in results.values())
