"""Kafka topics: looked at and made.

Imports no client: it is given confluent-kafka's metadata and its ``admin`` module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from outbox.runtime.topology import DECLARED, Shape, State, TopologyObject

_PATIENCE: Final = 10.0
"""Seconds for the broker to make topics."""

_BROKERS_CHOICE: Final = -1

_CONNECTION: Final = (
    *("bootstrap.", "security.", "sasl.", "ssl.", "socket.", "client.", "broker."),
    *("enable.ssl.", "enable.sasl.", "oauth_cb", "https."),
)


def connection_settings(config: Mapping[str, object]) -> dict[str, object]:
    """What of a client's settings says how to connect, for a second client beside it."""
    return {key: value for key, value in config.items() if key.startswith(_CONNECTION)}


def look(known: Mapping[str, Any], names: Iterable[str], shape: Shape) -> list[TopologyObject]:
    """Compare topics with ``known``, the topics of the cluster's metadata."""
    return [_compare(known.get(name), name, shape) for name in names]


def create(
    admin: Any, config: Mapping[str, object], objects: Sequence[TopologyObject], shape: Shape
) -> list[TopologyObject]:
    """Make the missing ones; the objects as they are then."""
    missing = [each.name for each in objects if each.state is State.MISSING]
    if not missing:
        return list(objects)
    made = {
        name: _BROKERS_CHOICE if number is None else number
        for name, number in (
            ("num_partitions", shape.partitions),
            ("replication_factor", shape.replication_factor),
        )
    }
    client = admin.AdminClient({**connection_settings(config), "log_level": 2})
    topics = [admin.NewTopic(name, **made) for name in missing]
    answers = client.create_topics(topics, operation_timeout=_PATIENCE, request_timeout=_PATIENCE)
    return [_made(each, answers[each.name]) if each.name in answers else each for each in objects]


def _compare(topic: Any, name: str, shape: Shape) -> TopologyObject:
    if topic is None:
        return TopologyObject("topic", name, State.MISSING)
    if topic.error is not None:
        return TopologyObject("topic", name, State.UNKNOWN, str(topic.error.str()))
    replicas = min((len(part.replicas) for part in topic.partitions.values()), default=0)
    have = Shape(len(topic.partitions), replicas)
    facts = f"{have.partitions} partitions, replication factor {have.replication_factor}"
    wrong = [
        f"{what} {is_}, asked for {asked}"
        for what, is_, asked in (
            ("partitions:", have.partitions, shape.partitions),
            ("replication factor:", have.replication_factor, shape.replication_factor),
        )
        if asked is not None and asked != is_
    ]
    if wrong:
        remedy = "partitions can only be added, and then keys move; see docs/how-to/topology.md"
        return TopologyObject("topic", name, State.DIFFERENT, f"{'; '.join(wrong)}: {remedy}")
    return TopologyObject("topic", name, State.PRESENT, facts)


def _made(each: TopologyObject, answer: Any) -> TopologyObject:
    try:
        answer.result(2 * _PATIENCE)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this topic's answer
        cause: Any = error.args[0] if error.args else error
        name = cause.name() if hasattr(cause, "name") else type(error).__name__
        text = cause.str() if hasattr(cause, "str") else str(error)
        if name == "TOPIC_ALREADY_EXISTS":
            detail = "it exists, but this account may not describe it"
            return TopologyObject("topic", each.name, State.UNKNOWN, detail)
        return TopologyObject("topic", each.name, State.MISSING, f"{name}: {text}")
    return TopologyObject("topic", each.name, State.PRESENT, DECLARED)
