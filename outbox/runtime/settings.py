"""Read one settings dict into a frozen dataclass, and refuse what it does not know."""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

T = typing.TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with the settings, for an exception and for a system check alike."""

    text: str
    """Where it is, and what is wrong."""
    hint: str = ""
    """The line to change."""
    check: str = "E002"
    """The system check that reports it, without the app's label."""

    def __str__(self) -> str:
        return f"{self.text} {self.hint}".rstrip()


class InvalidSettings(ImproperlyConfigured):
    """A settings dict is wrong in one or more places; `faults` lists them."""

    def __init__(self, *faults: Fault) -> None:
        """Raise with at least one fault."""
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


class ContradictionError(ValueError):
    """Raised by a settings dataclass whose values do not fit each other, or make no sense."""

    def __init__(self, *faults: Fault) -> None:
        """Texts start with the key; the reader puts the setting's name before them."""
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Hint at the nearest of the known names, or at all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."


def read(name: str, into: type[T]) -> T:
    """Build ``into`` (a dataclass) from the Django setting ``name`` (a dict).

    The dict's keys are the field names in upper case; a field that is itself a dataclass takes a
    nested dict. A text ``"env:NAME"`` stands for that environment variable. Raises
    `InvalidSettings`, an `ImproperlyConfigured`, with the path of each key that is missing,
    unknown or ill-typed. A field's metadata may have a missing key's ``hint`` and ``check``.
    """
    value = getattr(django_settings, name, None)
    if value is None:
        raise InvalidSettings(
            Fault(f"The setting {name} is missing: it is a dict, see the README.", check="E001")
        )
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
    faults = [
        Fault(f"{path}[{key!r}] is not a setting.", did_you_mean(key, fields))
        for key in given
        if key not in fields
    ]
    values = {}
    for key, field in fields.items():
        place = f"{path}[{key!r}]"
        if key in given:
            try:
                values[field.name] = _convert(given[key], hints[field.name], place)
            except InvalidSettings as error:
                faults += error.faults
        elif field.default is field.default_factory is dataclasses.MISSING:
            faults.append(Fault(f"{place} is required.", **field.metadata))
    if faults:
        raise InvalidSettings(*faults)
    try:
        return into(**values)
    except ContradictionError as error:
        raise InvalidSettings(
            *(dataclasses.replace(fault, text=f"{path}: {fault.text}") for fault in error.faults)
        ) from error
    except ValueError as error:
        raise InvalidSettings(Fault(f"{path}: {error}")) from error


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
        known = ", ".join(map(repr, arguments))
        raise InvalidSettings(Fault(f"{path} must be one of {known}, not {value!r}."))
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
        raise InvalidSettings(Fault(f"{path} must be a list or tuple, not {value!r}."))
    hints = arguments if origin is tuple else arguments * len(value)
    if len(hints) != len(value):
        raise InvalidSettings(Fault(f"{path} must have {len(hints)} items, not {len(value)}."))
    pairs = zip(value, hints, strict=True)
    return tuple(_convert(item, hint, f"{path}[{i}]") for i, (item, hint) in enumerate(pairs))


def _first_fit(value: object, hints: tuple[object, ...], path: str) -> object:
    faults = []
    for hint in hints:
        try:
            return _convert(value, hint, path)
        except InvalidSettings as error:
            faults.append(str(error))
    raise InvalidSettings(Fault(" Or: ".join(faults)))


def _expect_dict(value: object, path: str) -> Mapping[str, object]:
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return value
    raise InvalidSettings(Fault(f"{path} must be a dict with text keys, not {value!r}."))


def _expect(value: object, kind: type[T], path: str, name: str) -> T:
    if kind is type(None):
        name = "None"
    # A bool is an int to Python and a mistake to a person.
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise InvalidSettings(Fault(f"{path} must be {name}, not {value!r}."))


def _from_environment(value: object, path: str) -> object:
    if not (isinstance(value, str) and value.startswith("env:")):
        return value
    variable = value.removeprefix("env:")
    if variable not in os.environ:
        text = f"{path} names the environment variable {variable}, which is not set."
        raise InvalidSettings(Fault(text))
    return os.environ[variable]
