"""Apache Kafka as Maven gets it: fetched once, as pom.xml says, and kept between runs."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.services.packages import Absent, install

POM = Path(__file__).with_name("pom.xml")
OLDEST_JAVA = 17
PATIENCE = 300


@dataclass(frozen=True)
class Distribution:
    java: Path
    folder: Path

    @property
    def classpath(self) -> str:
        # Sorted, since an archive of classes holds for one order only.
        return ":".join(map(str, sorted(self.folder.glob("*.jar"))))

    @property
    def archive(self) -> Path:
        """The JVM's class data sharing: classes as they lie in memory once loaded."""
        return self.folder / "classes.jsa"

    def keep_archive(self, made: Path) -> None:
        draft = self.folder / f"{made.parent.name}.draft"
        if made.exists():
            shutil.copyfile(made, draft)
        else:  # this JVM makes none: it ignores an empty one, and we do not try again
            draft.touch()
        draft.chmod(0o644)
        draft.replace(self.archive)


@cache
def fetched() -> Distribution:
    """Raises Absent if it cannot be had here."""
    if not (java := _java()):
        install("default-jre-headless", "maven")
        java = _java()
    if not java:
        raise Absent(f"Kafka needs Java {OLDEST_JAVA} or newer")
    path, version = java
    key = hashlib.sha256(POM.read_bytes() + version.encode()).hexdigest()[:12]
    folder = _cache() / f"kafka-{key}"
    if not folder.exists():
        try:
            _fetch(folder)
        except OSError as error:
            raise Absent(f"Kafka's jars have no place: {error}") from error
    return Distribution(path, folder)


def _java() -> tuple[Path, str] | None:
    """Its path and what it says of its version."""
    homes = [os.environ["JAVA_HOME"] + "/bin"] if os.environ.get("JAVA_HOME") else []
    for path in (shutil.which("java", path=folder) for folder in [*homes, None]):
        if path:
            said = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
            number = re.search(r'version "(\d+)', said.stderr)
            if number and int(number[1]) >= OLDEST_JAVA:
                return Path(path).resolve(), said.stderr
    return None


def _cache() -> Path:
    """Outside the checkout: the account that runs the server may not be able to enter that."""
    if os.geteuid() == 0:
        base = Path("/var/cache")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "django-outbox-inbox"


def _fetch(folder: Path) -> None:
    if not shutil.which("mvn"):
        install("maven")
    print("fetching Apache Kafka ...", file=sys.stderr, flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=folder.parent))
    try:
        _maven(draft)
        for path in [folder.parent, draft, *draft.iterdir()]:  # whatever our umask
            path.chmod(0o644 if path.is_file() else 0o755)
        with suppress(FileExistsError):  # another run was quicker
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _maven(target: Path) -> None:
    try:
        done = subprocess.run(
            [
                "mvn",
                "--batch-mode",
                "--quiet",
                "--strict-checksums",
                f"--file={POM}",
                f"-Dtarget={target}",
                "dependency:copy-dependencies",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise Absent(f"Maven did not fetch Kafka within {PATIENCE} s") from None
    if done.returncode:
        print(done.stdout[-2000:], file=sys.stderr)
        raise Absent("Maven could not fetch Kafka")
