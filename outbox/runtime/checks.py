"""What the system checks of both apps share."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's name for it

from outbox.runtime.settings import Fault

PAGE: Final = "docs/reference/checks.md"
"""Where each check is explained, under an anchor of its own."""

_DISTRIBUTION: Final = "django-outbox-inbox"
_LEVELS: Final = {"E": Error, "W": Warning}


def report(label: str, faults: Iterable[Fault]) -> list[CheckMessage]:
    """Say the same fault once, under its id with the app's label."""
    return [
        _LEVELS[fault.check[0]](
            fault.text,
            hint=f"{fault.hint} See {PAGE}#{label}.{fault.check}".lstrip(),
            id=f"{label}.{fault.check}",
        )
        for fault in dict.fromkeys(faults)
    ]


def strangers(*packages: str) -> list[Fault]:
    """E005: packages of ours that are not imported from our distribution.

    Their names are general, so a project's own app or another distribution may hide them. Where
    the sources are used without being installed there is nothing to compare with.
    """
    try:
        home = _home(metadata.distribution(_DISTRIBUTION))
    except metadata.PackageNotFoundError:
        return []
    found = {name: Path(importlib.import_module(name).__file__ or "") for name in packages}
    return [
        Fault(
            f"{name!r} is imported from {file}, which is not {_DISTRIBUTION}.",
            f"Rename or remove the other one; ours is in {home / name}.",
            "E005",
        )
        for name, file in found.items()
        if file.resolve() != (home / name / "__init__.py").resolve()
    ]


def _home(installed: metadata.Distribution) -> Path:
    """The folder that holds the packages; of an editable installation the sources'."""
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        return Path(url2pathname(urlsplit(origin["url"]).path))
    return Path(str(installed.locate_file("")))
