"""A configuration of librdkafka's producer from ours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from outbox.exceptions import InvalidBroker
from outbox.runtime.settings import Fault

OWN: Final = frozenset({"window"})
"""The options that are not librdkafka's."""

_TIMEOUTS: Final = ("message.timeout.ms", "delivery.timeout.ms")
"""Two names of one setting."""

_DEFAULTS: Final[Mapping[str, object]] = {
    "acks": "all",
    "enable.idempotence": True,
    # The Java client's choice; librdkafka's own (CRC32) puts keys elsewhere (F10).
    "partitioner": "murmur2_random",
    # A typing error in a topic must not create one with a single replica (F11).
    "allow.auto.create.topics": False,
    # What a broker takes by default; librdkafka's own default is less than MAX_BODY and headers.
    "message.max.bytes": 1_048_576,
    # How long a topic may stay unknown before the message is given back; the default of 30 s is
    # longer than a lease, so that the verdict would never come.
    "topic.metadata.propagation.max.ms": 1000,
}


def configure(
    path: str, url: str, options: Mapping[str, object], lease: timedelta
) -> dict[str, object]:
    """The client's configuration; ``path`` names the broker's setting.

    Raises `InvalidBroker` for what we can judge ourselves.
    """
    given = {key: value for key, value in options.items() if key not in OWN}
    config = {**_DEFAULTS, **given}
    if url:
        config.setdefault("bootstrap.servers", url.removeprefix("kafka://").rstrip("/"))
    if not config.get("bootstrap.servers"):
        raise InvalidBroker(
            f"{path} names no servers: set 'URL' to "
            "kafka://host:port,host:port, or OPTIONS['bootstrap.servers']."
        )
    # After the lease somebody else may send the message again, so ours must be dead by then.
    longest = lease.total_seconds() * 1000
    if not any(key in given for key in _TIMEOUTS):
        config["message.timeout.ms"] = int(longest * 0.8)
    for key in _TIMEOUTS:
        if key in config and not _is_between(config[key], 0, longest):
            raise InvalidBroker(
                f"{path}['OPTIONS'][{key!r}] must be more than 0 "
                f"and less than LEASE ({longest:.0f} ms), not {config[key]!r}.",
                f"Remove it: 80 % of OUTBOX['LEASE'], {longest * 0.8:.0f}, is the default.",
                check="E010",
            )
    return config


def doubts(path: str, config: Mapping[str, object]) -> list[Fault]:
    """What makes a confirmation worth less than it says."""
    acks = config.get("request.required.acks", config["acks"])
    kept = str(acks).lower() in ("all", "-1")
    once = str(config["enable.idempotence"]).lower() in ("true", "1")
    if kept and once:
        return []
    return [
        Fault(
            f"{path}['OPTIONS'] turns off acks=all or enable.idempotence: Kafka may confirm a "
            "message and lose it, or change the order of a key.",
            "Remove 'acks' and 'enable.idempotence' from it: the defaults are safe.",
            "W005",
        )
    ]


def _is_between(value: object, low: float, high: float) -> bool:
    try:
        return low < float(str(value)) < high
    except ValueError:
        return False
