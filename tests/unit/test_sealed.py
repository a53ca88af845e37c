"""The sealed parts: what they may load, and what the consuming half may see."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import inbox
import outbox
from tests.outbox_support import ROOT

# Not below ROOT: the suite also runs against the built wheel.
HOMES = [Path(outbox.__file__).parent, Path(inbox.__file__).parent]

FOREIGN = """
import sys
before = set(sys.modules)
import {module}
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(loaded - sys.stdlib_module_names))
"""


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("outbox.wire, outbox.wire.headers", {"outbox"}),
        ("outbox.runtime.backoff, outbox.runtime.shutdown", {"outbox"}),
        ("outbox.runtime.threads, outbox.runtime.hub", {"outbox"}),
        ("outbox", {"outbox"}),
        ("outbox.runtime.settings", {"outbox", "django", "asgiref"}),
    ],
)
def test_loads_only(module, allowed):
    code = FOREIGN.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) <= allowed


def seen_of_outbox(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "outbox":
            yield from (f"outbox.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_inbox_sees_only_wire_and_runtime():
    files = sorted(HOMES[1].rglob("*.py"))
    seen = {
        (str(file.relative_to(HOMES[1])), name)
        for file in files
        for name in seen_of_outbox(ast.parse(file.read_text()))
        if name.split(".")[0] == "outbox"
    }
    assert seen, "the consuming half no longer uses the wire contract"
    assert {
        (file, name) for file, name in seen if name.split(".")[1] not in ("wire", "runtime")
    } == set()


def test_sql_only_in_the_store():
    outside = [
        str(file.relative_to(HOMES[0]))
        for file in sorted(HOMES[0].rglob("*.py"))
        if "store" not in file.relative_to(HOMES[0]).parts and "cursor(" in file.read_text()
    ]
    assert outside == []
