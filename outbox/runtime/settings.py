"""Read one settings dict into a frozen dataclass, and refuse what it does not know."""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Mapping, Sequence

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

T = typing.TypeVar("T")


def read(name: str, into: type[T]) -> T:
    """Build ``into`` (a dataclass) from the Django setting ``name`` (a dict).

    The dict's keys are the field names in upper case; a field that is itself a dataclass takes a
    nested dict. A text ``"env:NAME"`` stands for that environment variable. Raises
    `ImproperlyConfigured` with the path of the fault for a missing, unknown or ill-typed key.
    """
    value = getattr(django_settings, name, None)
    if value is None:
        message = f"The setting {name} is missing: it is a dict, see the README."
        raise ImproperlyConfigured(message)
    return typing.cast(T, _convert(value, into, name))


def merged(name: str, keys: Mapping[str, object]) -> dict[str, object]:
    """The Django setting ``name`` with some keys changed; nested dicts are merged likewise."""
    return _merge(getattr(django_settings, name, None) or {}, keys)


def _merge(old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, object]:
    result = dict(old)
    for key, value in new.items():
        before = result.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            result[key] = _merge(before, value)
        else:
            result[key] = value
    return result


def _build(given: Mapping[str, object], into: type, path: str) -> object:
    hints = typing.get_type_hints(into)
    fields = {field.name.upper(): field for field in dataclasses.fields(into)}
    for key in given:
        if key not in fields:
            raise ImproperlyConfigured(_unknown(path, key, list(fields)))
    for key, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and key not in given:
            message = f"{path}[{key!r}] is required."
            raise ImproperlyConfigured(message)
    values = {
        key.lower(): _convert(value, hints[key.lower()], f"{path}[{key!r}]")
        for key, value in given.items()
    }
    try:
        return into(**values)
    except ValueError as error:
        message = f"{path}: {error}"
        raise ImproperlyConfigured(message) from error


def _unknown(path: str, key: object, known: list[str]) -> str:
    near = difflib.get_close_matches(str(key), known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
    return f"{path}[{key!r}] is not a setting. {hint}"


def _convert(value: object, hint: object, path: str) -> object:  # noqa: PLR0911 - a kind a line
    value = _from_environment(value, path)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(_expect_dict(value, path), hint, path)
    if origin in (typing.Union, types.UnionType):
        return _first_fit(value, arguments, path)
    if origin is typing.Literal:
        if value in arguments:
            return value
        message = f"{path} must be one of {', '.join(map(repr, arguments))}, not {value!r}."
        raise ImproperlyConfigured(message)
    if origin is Mapping:
        items = _expect_dict(value, path).items()
        return {key: _convert(item, arguments[1], f"{path}[{key!r}]") for key, item in items}
    if origin in (tuple, Sequence):
        return _sequence(value, origin, arguments, path)
    if hint is object:
        return _resolve(value, path)
    return _expect(value, typing.cast(type, hint), path, f"of type {hint.__name__}")  # type: ignore[attr-defined]


def _resolve(value: object, path: str) -> object:
    """Free-form options: nothing to check, but "env:NAME" counts at any depth."""
    if isinstance(value, Mapping):
        return {key: _resolve(item, f"{path}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolve(item, f"{path}[{i}]") for i, item in enumerate(value)]
    return _from_environment(value, path)


def _sequence(value: object, origin: object, arguments: tuple[object, ...], path: str) -> object:
    if not isinstance(value, list | tuple):
        message = f"{path} must be a list or tuple, not {value!r}."
        raise ImproperlyConfigured(message)
    hints = arguments if origin is tuple else arguments * len(value)
    if len(hints) != len(value):
        message = f"{path} must have {len(hints)} items, not {len(value)}."
        raise ImproperlyConfigured(message)
    pairs = zip(value, hints, strict=True)
    return tuple(_convert(item, hint, f"{path}[{i}]") for i, (item, hint) in enumerate(pairs))


def _first_fit(value: object, hints: tuple[object, ...], path: str) -> object:
    faults = []
    for hint in hints:
        try:
            return _convert(value, hint, path)
        except ImproperlyConfigured as error:
            faults.append(str(error))
    raise ImproperlyConfigured(" Or: ".join(faults))


def _expect_dict(value: object, path: str) -> Mapping[str, object]:
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return value
    message = f"{path} must be a dict with text keys, not {value!r}."
    raise ImproperlyConfigured(message)


def _expect(value: object, kind: type[T], path: str, name: str) -> T:
    if kind is type(None):
        name = "None"
    # A bool is an int to Python and a mistake to a person.
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    message = f"{path} must be {name}, not {value!r}."
    raise ImproperlyConfigured(message)


def _from_environment(value: object, path: str) -> object:
    if not (isinstance(value, str) and value.startswith("env:")):
        return value
    variable = value.removeprefix("env:")
    if variable not in os.environ:
        message = f"{path} names the environment variable {variable}, which is not set."
        raise ImproperlyConfigured(message)
    return os.environ[variable]
