"""One module a subject; each registers its cases when it is imported."""

from __future__ import annotations

import importlib
import pkgutil


def load() -> None:
    """Import them all. Django must be set up."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
