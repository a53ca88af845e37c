"""What is in the wheel and in the sdist, and which of the packages this run has tested."""

from __future__ import annotations

import email
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import inbox
import outbox
from tests.outbox_support import ROOT
from tests.packaging.build import GIVEN, build


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """A folder with wheel and sdist."""
    return build(tmp_path_factory.mktemp("dist")).parent


@pytest.fixture(scope="session")
def wheel(built):
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_this_run_tests_the_packages_that_it_was_told_to():
    home = Path(sysconfig.get_path("purelib")) if GIVEN else ROOT
    assert {Path(package.__file__).parents[1] for package in (outbox, inbox)} == {home}
    assert bool(GIVEN) == (not (ROOT / "outbox").exists())


def test_the_wheel_holds_the_two_packages_and_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"outbox", "inbox"}
    assert len(tops) == 3


def test_the_wheel_holds_every_file_of_the_packages(wheel):
    """Also what is no Python: py.typed, templates, static files, catalogues."""
    home = Path(outbox.__file__).parents[1]
    sources = {
        str(path.relative_to(home))
        for package in ("outbox", "inbox")
        for path in (home / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources == {name for name in wheel.namelist() if ".dist-info/" not in name}
    for package in ("outbox", "inbox"):
        assert {f"{package}/py.typed", f"{package}/migrations/0001_initial.py"} <= sources


def test_the_wheel_says_what_it_needs(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    said = email.message_from_bytes(wheel.read(name))
    assert said["Name"] == "django-outbox-inbox"
    assert said["License-Expression"] == "BSD-3-Clause"
    needs = said.get_all("Requires-Dist")
    assert [need for need in needs if "extra ==" not in need] == ["django>=5.2"]
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())


def test_all_is_the_sum_of_the_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    (everything,) = extras.pop("all")
    named = everything.removeprefix("django-outbox-inbox[").removesuffix("]").split(",")
    assert sorted(named) == sorted(extras)


def test_the_sdist_can_be_tested(built):
    """It holds what the tests need, and neither caches nor local state."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tops = {name.split("/")[0] for name in names}
    assert tops >= {"outbox", "inbox", "tests", "docs", "demo_app", "settings", "manage.py"}
    assert tops >= {"pyproject.toml", "requirements.txt", "Makefile", "LICENSE", "README.md"}
    assert "tests/services/kafka/pom.xml" in names
    hidden = {top for top in tops if top.startswith(".")}
    assert hidden <= {".ci", ".gitignore", ".pre-commit-config.yaml"}
    assert not any("__pycache__" in name for name in names)
