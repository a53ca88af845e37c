"""What every broker driver needs before it connects: settings, options, its client library."""

from __future__ import annotations

import importlib.util
import json
import sys
import typing
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from outbox.runtime.settings import Fault, InvalidSettings, did_you_mean

T = typing.TypeVar("T")


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """One entry of BROKERS."""

    backend: str = field(metadata={"check": "E001"})
    """Dotted path of the driver's class."""
    url: str = ""
    options: Mapping[str, object] = field(default_factory=dict)


class InvalidBroker(InvalidSettings):
    """A broker's alias, backend, URL or options are wrong."""

    def __init__(self, text: str, hint: str = "", check: str = "E001") -> None:
        """Say where and what; ``hint`` names the line to change."""
        super().__init__(Fault(text, hint, check))


def from_url(url: str, backends: Mapping[str, str]) -> dict[str, object]:
    """Build an entry of BROKERS; ``backends`` maps schemes to drivers.

    What follows the '?' becomes OPTIONS, numbers and true or false with their type. The host of
    ``memory://`` names the hub. Raises `InvalidBroker` for another scheme.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in backends:
        # Not the URL, which may hold a password.
        raise InvalidBroker(
            f"A broker's URL starts with {', '.join(f'{name}://' for name in backends)}, not "
            f"{parts.scheme}://."
        )
    options = {key: _typed(value) for key, value in urllib.parse.parse_qsl(parts.query)}
    entry: dict[str, object] = {"BACKEND": backends[parts.scheme]}
    if parts.scheme != "memory":
        entry["URL"] = url.partition("?")[0]
    elif parts.netloc:
        options["name"] = parts.netloc
    return {**entry, "OPTIONS": options}


def read_options(path: str, options: Mapping[str, object], into: Callable[..., T]) -> T:
    """Build the dataclass of a driver's own options; ``path`` names them in errors.

    Raises `InvalidBroker` for an unknown key, with the nearest match, and for a wrong type.
    """
    hints = typing.get_type_hints(into)
    for key, value in options.items():
        if key not in hints:
            text = f"{path}[{key!r}] is not an option of this backend."
            raise InvalidBroker(text, did_you_mean(key, hints), check="E002")
        if not _fits(value, hints[key]):
            default = getattr(into(), key)
            raise InvalidBroker(
                f"{path}[{key!r}] is {value!r}; it must be like its default, {default!r}.",
                check="E002",
            )
    return into(**options)


def require_client(path: str, module: str, extra: str) -> None:
    """Raise `InvalidBroker` when a broker's client is not installed; import nothing."""
    # kombu takes its own place in sys.modules, where find_spec() cannot look.
    if sys.modules.get(module) is None and importlib.util.find_spec(module) is None:
        raise InvalidBroker(
            f"{path} needs {module}, which is not installed.",
            f'Run: pip install "django-outbox-inbox[{extra}]"',
        )


def _typed(text: str) -> object:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text


def _fits(value: object, hint: object) -> bool:
    kinds = typing.get_args(hint) or (hint,)
    # A bool is an int to Python and a mistake to a person.
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)
