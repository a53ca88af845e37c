"""The driver in docs/how-to/write-a-broker.md keeps the contract, as the page says it does."""

import re
import subprocess
import sys

import pytest

from tests.outbox_support import ROOT, environment

PAGE = ROOT / "docs" / "how-to" / "write-a-broker.md"

UNITTEST = """
import tempfile, unittest
import django
django.setup()
from outbox.brokers.memory import MemoryPublisher
from outbox.runtime import hub
from outbox.testing import PublisherContract
from outbox.wire import from_headers
import inbox.testing, sys
assert "pytest" not in sys.modules

class TestMemory(PublisherContract, unittest.TestCase):
    def setUp(self):
        hub.get("default").clear()
    def publisher(self):
        return MemoryPublisher("default", "", {})
    def unreachable(self):
        return None
    def received(self, topic, count):
        return [from_headers(each.headers, each.body) for each in hub.get("default").records(topic)]

del PublisherContract
unittest.main()
"""


@pytest.fixture
def written(tmp_path):
    """The page's files, as a reader would save them."""
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for name, code in blocks:
        (tmp_path / name).write_text(code)
    assert [name for name, _ in blocks] == ["directory_broker.py", "test_directory_broker.py"]
    return tmp_path


def run_pytest(directory, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ".", *arguments],
        cwd=directory,
        env=environment(PYTHONPATH=f"{ROOT}:{directory}"),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return done.stdout


def test_the_driver_of_the_page_keeps_the_contract(written):
    out = run_pytest(written)
    (passed,) = re.findall(r"^(\d+) passed, 1 skipped", out, re.MULTILINE) or [0]
    assert int(passed) >= 19, out


def test_the_tests_of_the_page_would_notice_a_fault(written):
    driver = written / "directory_broker.py"
    sound = driver.read_text()
    driver.write_text(sound.replace("message.body.hex()", '""'))
    assert driver.read_text() != sound
    out = run_pytest(written, "-k", "each_submission")
    assert "Broken rule of outbox.brokers.Publisher: ACKED is said only of what" in out


def test_the_suites_run_without_pytest_too():
    done = subprocess.run(
        [sys.executable, "-c", UNITTEST],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert re.search(r"Ran 2\d tests.*\n\nOK \(skipped=4\)", done.stderr), done.stderr
