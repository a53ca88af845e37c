"""What the contract suites of both apps share: checks that name the broken rule, a fork, a look."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

E = TypeVar("E", bound=BaseException)

_SHOWN: Final = 1000
"""Characters of a value in an error: a thousand messages say no more than the first."""

_LOOK: Final = """
import json, sys
opened = []
sys.addaudithook(lambda event, _: event.startswith("socket.") and opened.append(event))
from django.utils.module_loading import import_string
from django.conf import settings
given = json.loads(sys.argv[1])
settings.configure(**given["settings"])
import_string(given["driver"])(*given["arguments"], **given["keywords"])
imported = sorted(set(given["modules"]) & set(sys.modules))
print(json.dumps(imported + sorted(set(opened) & {"socket.connect", "socket.getaddrinfo"})))
"""


def holds(condition: object, rule: str, saw: object = "") -> None:
    """Raise `AssertionError` that begins with the rule unless the condition is true."""
    if not condition:
        raise _broken(rule, f"but: {_short(saw)}" if saw != "" else "")


def equal(got: object, expected: object, rule: str) -> None:
    """Raise `AssertionError` that begins with the rule unless both are equal."""
    if got != expected:
        raise _broken(rule, f"expected: {_short(expected)}\n  got: {_short(got)}")


def raises(kind: type[E], rule: str, action: Callable[[], object]) -> E:
    """What the action raised; `AssertionError` that begins with the rule for anything else."""
    try:
        result = action()
    except kind as error:
        return error
    except Exception as error:
        text = f"expected: {kind.__name__}\n  raised: {_short(error)}"
        raise _broken(rule, text) from error
    raise _broken(rule, f"expected: {kind.__name__}\n  nothing was raised, but: {_short(result)}")


def lasts(rule: str, action: Callable[[], object]) -> None:
    """Raise `AssertionError` that begins with the rule if the action raises anything."""
    try:
        action()
    except Exception as error:
        raise _broken(rule, f"raised: {_short(error)}") from error


def in_child(action: Callable[[], object]) -> str:
    """Run it in a forked child, as a pre-fork server would; the child ends without cleaning up.

    What it returned or raised there, as text.
    """
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        # A client library's threads are in the parent: whether the driver bears that is the test.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            text = str(action())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent wants to see it
            text = f"{type(error).__name__}: {error}"
        os.write(writable, text.encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


def eagerness(
    driver: object,
    arguments: Sequence[object],
    keywords: dict[str, object],
    modules: Sequence[str],
    settings: dict[str, object],
) -> list[str]:
    """Make a driver of this kind in a fresh interpreter: which modules and sockets that took.

    All arguments must be what JSON can say, and the driver's class must be importable by its name.
    """
    kind = type(driver)
    given = {
        "driver": f"{kind.__module__}.{kind.__qualname__}",
        "arguments": list(arguments),
        "keywords": keywords,
        "modules": list(modules),
        "settings": settings,
    }
    done = subprocess.run(  # noqa: S603 - our own code, in our own interpreter
        [sys.executable, "-c", _LOOK, json.dumps(given)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode != 0:
        raise _broken(f"A {kind.__name__} cannot be made in a fresh interpreter.", done.stderr)
    return [str(name) for name in json.loads(done.stdout.splitlines()[-1])]


def _broken(rule: str, seen: str) -> AssertionError:
    return AssertionError(f"{rule}\n  {seen}" if seen else rule)


def _short(value: object) -> str:
    text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
