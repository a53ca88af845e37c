"""Topic → broker and address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from outbox.conf import get_settings
from outbox.exceptions import UnknownTopic


@dataclass(frozen=True, slots=True)
class Route:
    """Where a topic goes: a broker's alias, and an address in that driver's words."""

    broker: str
    address: Mapping[str, str] = field(default_factory=dict)


def resolve(topic: str) -> Route:
    """The route of a topic: the first pattern of ROUTES that matches it.

    Raises `UnknownTopic` when none does.
    """
    for pattern, target in get_settings().routes:
        if fnmatchcase(topic, pattern):
            return (
                Route(target) if isinstance(target, str) else Route(target.broker, target.address)
            )
    message = (
        f"No route matches the topic {topic!r}. Add one to OUTBOX['ROUTES'], such as "
        "('*', 'default') at its end."
    )
    raise UnknownTopic(message)
