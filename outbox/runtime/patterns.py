"""Topic patterns, as a database can match them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

_TOPIC_CHARACTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"


def any_of(patterns: Iterable[str]) -> str:
    """A regular expression, for Python and PostgreSQL, of what matches one of these patterns."""
    return rf"\A({'|'.join(map(topic_regex, patterns))})\Z"


def topic_regex(pattern: str) -> str:
    """A topic pattern (as `fnmatchcase`) as a regular expression of Python and PostgreSQL.

    What stands in brackets is written out, since the two disagree about them.
    """
    parts = re.findall(r"\[!?\]?[^\]]*\]|\*+|.", pattern, re.DOTALL)
    return "".join(map(_part, parts))


def _part(part: str) -> str:
    if part.startswith("*"):
        return ".*"
    if part == "?":
        return "."
    if part.startswith("[") and len(part) > 1:
        members = [c for c in _TOPIC_CHARACTERS if fnmatchcase(c, part)]
        # No topic has a space: nothing matches what has no member.
        return f"({'|'.join(map(re.escape, members)) or ' '})"
    return re.escape(part)
