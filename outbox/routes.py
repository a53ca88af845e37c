"""Topic → broker and address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from outbox.conf import get_settings
from outbox.exceptions import UnknownTopic

_WILD: Final = frozenset("*?[")


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


def address(topic: str, broker: str) -> Mapping[str, str]:
    """Where a stored message goes at the broker of its row; empty is the driver's default.

    A row keeps the broker that its route named at publish, whatever routes say today.
    """
    try:
        route = resolve(topic)
    except UnknownTopic:
        return {}
    return route.address if route.broker == broker else {}


def addresses(broker: str, topics: Iterable[str] = ()) -> list[dict[str, str]]:
    """Where messages of this broker go, as far as it can be known before they are published.

    That is where a route names a topic without a pattern, or an address, and where ``topics`` go.
    Each has its ``topic``, unless a pattern hides it. Raises `UnknownTopic` for one of ``topics``
    that no route matches.
    """
    found: list[dict[str, str]] = []
    for pattern, target in get_settings().routes:
        route = Route(target) if isinstance(target, str) else Route(target.broker, target.address)
        if route.broker == broker:
            named = {} if _WILD & set(pattern) else {"topic": pattern}
            found.append({**named, **route.address})
    for topic in topics:
        route = resolve(topic)
        if route.broker == broker:
            found.append({"topic": topic, **route.address})
    return found
