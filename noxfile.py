"""The distribution as users get it: the built wheel on the oldest and the newest pair. `make nox`.

Each session installs the wheel into an environment of its own and runs in a folder that has the
tests and not the packages. Addresses of servers come from the environment, as for `make test`.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml("pyproject.toml")
TESTING = [*nox.project.dependency_groups(PROJECT, "test", "browser"), "dj-database-url"]
# But for psycopg, which the extra brings, and whose first version has no [binary] to be had.
DEMO = [
    need
    for need in nox.project.dependency_groups(PROJECT, "demo")
    if not need.startswith("psycopg")
]
EXTRAS = ["none", *(name for name in PROJECT["project"]["optional-dependencies"] if name != "all")]
SERVERS = {
    "postgres": "DATABASE_URL",
    "rabbitmq": "RABBITMQ_URL",
    "kafka": "KAFKA_BOOTSTRAP_SERVERS",
}
# What the package says of itself, the oldest first.
PYTHONS = sorted(
    (
        classifier.rpartition(" ")[2]
        for classifier in PROJECT["project"]["classifiers"]
        if classifier.startswith("Programming Language :: Python :: 3.")
    ),
    key=lambda version: int(version.partition(".")[2]),
)
VERSION_OF = "import sys; print('{}.{}'.format(*sys.version_info))"

nox.options.error_on_missing_interpreters = True
# pip, as in .venv: uv, which nox prefers where it is, does not read pip's settings.
nox.options.default_venv_backend = "virtualenv"


def interpreter(version: str) -> str | None:
    """Where that Python is: on PATH, among pyenv's versions or uv's."""
    for path in candidates(version):
        done = subprocess.run(
            [path, "-c", VERSION_OF], capture_output=True, text=True, timeout=30, check=False
        )
        # pyenv puts a stand-in on PATH also for versions that are not switched on.
        if done.stdout.strip() == version:
            return path
    return None


def candidates(version: str) -> Iterator[str]:
    yield sys.executable
    if path := shutil.which(f"python{version}"):
        yield path
    if root := os.environ.get("PYENV_ROOT") or said_by("pyenv", "root"):
        yield from map(str, Path(root).glob(f"versions/{version}.*/bin/python"))
    if path := said_by("uv", "python", "find", "--no-python-downloads", version):
        yield path


def said_by(*command: str) -> str:
    if not shutil.which(command[0]):
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


FOUND = {version: path for version in PYTHONS if (path := interpreter(version))}
NEWEST = max(FOUND, key=PYTHONS.index)


def not_run(version: str) -> None:
    """Say so in the last lines, below nox's own."""
    print_last = functools.partial(print, file=sys.stderr, flush=True)
    atexit.register(
        print_last, f"Python {version:<6} absent     NOT RUN: not on PATH, nor in pyenv, nor in uv"
    )


@functools.cache
def built() -> tuple[Path, Path]:
    """The wheel, built once from the sdist, and a folder with the project but for its packages."""
    folder = Path(tempfile.mkdtemp(prefix="ob-wheel-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    away = folder / "project"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if name.split("/")[0] not in ("outbox", "inbox") and (ROOT / name).is_file():
            (away / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, away / name)
    return wheel, away


def prepare(session: nox.Session, extra: str, *more: str) -> None:
    """Install the wheel with the versions of requirements.txt, where ``more`` pins no other."""
    wheel, away = built()
    free = {"django", *(pin.partition("==")[0].lower() for pin in more if "==" in pin)}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    kept = [line for line in lines if line.partition("==")[0].removesuffix("-binary") not in free]
    constraints = Path(session.create_tmp()) / "constraints.txt"
    constraints.write_text("\n".join(kept))
    session.install(f"{wheel}{extra}", *TESTING, *more, "--constraint", str(constraints))
    session.chdir(away)
    session.env["OUTBOX_TEST_WHEEL"] = str(wheel)
    session.run(
        "python", "-c", "import django, sys; print(sys.version, 'Django', django.__version__)"
    )


def without_servers(session: nox.Session, *kept: str) -> None:
    """What these sessions leave out is no gap of the run, so its report does not count it."""
    for name in (*SERVERS.values(), "OUTBOX_TEST_REQUIRE", "OUTBOX_TEST_REPORT"):
        if name not in kept:
            session.env[name] = None


@nox.session(python=FOUND[NEWEST])
def newest(session: nox.Session) -> None:
    """The newest Python here and the newest Django for it, on real servers."""
    for version in PYTHONS[PYTHONS.index(NEWEST) + 1 :]:
        not_run(version)
    prepare(session, "[all]", *DEMO)
    tests = ["tests/unit", "tests/contract", "tests/integration", "tests/packaging"]
    session.run("python", "-m", "pytest", "-q", "--numprocesses", "2", *(session.posargs or tests))


@nox.session(python=FOUND.get(PYTHONS[0], False))
def oldest(session: nox.Session) -> None:
    """The oldest Python with the first version of everything that we say we work with."""
    if PYTHONS[0] not in FOUND:
        not_run(PYTHONS[0])
        session.skip("its interpreter is not here")
    project = PROJECT["project"]
    ranges = [*project["dependencies"]]
    for name, needed in project["optional-dependencies"].items():
        ranges += needed if name != "all" else []
    prepare(session, "[all]", *DEMO, *(text.replace(">=", "==") for text in ranges))
    # The brokers are what the first version of a client may not get on with.
    without_servers(session, SERVERS["rabbitmq"], SERVERS["kafka"])
    session.run(
        "python", "-m", "pytest", "-q", "--numprocesses", "2", "tests/unit", "tests/contract"
    )


@nox.session(python=sys.executable)
@nox.parametrize("extra", EXTRAS, ids=EXTRAS)
def extra(session: nox.Session, extra: str) -> None:
    """One extra and no other: what needs it works, what does not says what to install."""
    prepare(session, "" if extra == "none" else f"[{extra}]")
    without_servers(session, SERVERS.get(extra, ""))
    session.env["OUTBOX_TEST_EXTRAS"] = extra
    session.run("python", "-m", "pytest", "-q", "--ds=tests.packaging.settings", "tests/packaging")
