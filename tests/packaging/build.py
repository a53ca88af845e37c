"""Builds what users install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.outbox_support import ROOT

GIVEN = os.environ.get("OUTBOX_TEST_WHEEL")
"""The wheel that is installed in the place of the sources, if this run tests one."""


def build(folder: Path) -> Path:
    """The wheel, in a folder that also has the sdist from which it was built."""
    if GIVEN:
        return Path(GIVEN)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel
