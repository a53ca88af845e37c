"""Installs Debian packages, without the system services that they would start."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLICY = Path("/usr/sbin/policy-rc.d")


class Absent(Exception):  # noqa: N818 - a finding, not always an error
    """The server is not installed and we may not, or could not, change that."""


def install(*names: str) -> None:
    wanted = " ".join(names)
    if os.environ.get("OUTBOX_TEST_INSTALL") == "0" or os.geteuid() or not shutil.which("apt-get"):
        raise Absent(f"apt-get install {wanted}")
    print(f"installing {wanted} ...", file=sys.stderr, flush=True)
    with _no_services():
        # The lists may be missing or older than the archive: a look at them costs a download.
        done = _apt("install", *names)
        if done.returncode:
            _apt("update")
            done = _apt("install", *names)
    if done.returncode:
        print(done.stdout[-2000:], file=sys.stderr)
        raise Absent(f"apt-get install {wanted} failed")


def _apt(command: str, *packages: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            "apt-get",
            command,
            "-y",
            "--no-install-recommends",
            "-o",
            "DPkg::Lock::Timeout=120",
            *packages,
        ],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@contextmanager
def _no_services() -> Iterator[None]:
    """Debian's way to say "start nothing": a policy-rc.d that answers 101. Another's stays."""
    try:
        with POLICY.open("x") as file:
            file.write("#!/bin/sh\nexit 101\n")
    except FileExistsError:
        yield
        return
    try:
        POLICY.chmod(0o755)
        yield
    finally:
        POLICY.unlink(missing_ok=True)
