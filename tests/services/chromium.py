"""Chromium from the Debian package: a program, so there is nothing to start or to stop."""

import importlib.util
import re
import shutil
import subprocess

from tests.services.base import ServerError
from tests.services.packages import Absent, install


class Chromium:
    kind = "chromium"
    variable = "CHROMIUM"  # the path of the program

    @classmethod
    def require(cls) -> None:
        if importlib.util.find_spec("playwright") is None:
            raise Absent("pip install playwright")
        if not shutil.which("chromium"):
            install("chromium", "fonts-dejavu-core")

    @classmethod
    def path(cls) -> str:
        return shutil.which("chromium") or ""

    @classmethod
    def version_of(cls, path: str) -> str:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=60, check=True
        )
        found = re.search(r"\d+(\.\d+)*", done.stdout)
        if not found:
            raise ServerError(f"{path} --version says {done.stdout!r}")
        return found[0]
