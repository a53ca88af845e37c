"""What librdkafka needs around it: a configuration from ours, text headers, readable errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from inbox.exceptions import InvalidBroker

if TYPE_CHECKING:
    from confluent_kafka import Message

T = TypeVar("T")

OWN: Final = frozenset({"dead_letter_topic"})
"""The options that are not librdkafka's."""

_DEFAULTS: Final[Mapping[str, object]] = {
    # A new group starts with what is there: it must not miss what was sent before it came.
    "auto.offset.reset": "earliest",
    # A topic may be made after its consumer has started; the default is five minutes.
    "topic.metadata.refresh.interval.ms": 5_000,
    # Its log repeats, for each try, what arrives as an error as well.
    "log_level": 2,
}


def configure(path: str, url: str, options: Mapping[str, object], group: str) -> dict[str, object]:
    """The client's configuration; ``path`` names the broker's setting.

    Raises `InvalidBroker` for what we can judge ourselves.
    """
    given = {key: value for key, value in options.items() if key not in OWN}
    fixed = {"group.id": group, "enable.auto.commit": False}
    for key, value in fixed.items():
        if given.get(key, value) != value:
            message = f"{path}['OPTIONS'][{key!r}] is fixed: {value!r}."
            raise InvalidBroker(message)
    config = {**_DEFAULTS, **given, **fixed}
    if url:
        config.setdefault("bootstrap.servers", url.removeprefix("kafka://").rstrip("/"))
    if not config.get("bootstrap.servers"):
        message = f"{path} names no servers: set 'URL' to kafka://host:port,host:port."
        raise InvalidBroker(message)
    return config


def known(value: T | None) -> T:
    """What every message that librdkafka hands out has, although its type says otherwise."""
    assert value is not None
    return value


def text_headers(message: Message) -> dict[str, str]:
    """The headers as text; of two with one name the later."""
    fields: Any = message.headers() or []
    return {
        name: value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
        for name, value in fields
    }


def text_of(error: Exception) -> str:
    """The text of a KafkaError rather than its repr."""
    cause = error.args[0] if error.args else error
    return str(cause.str()) if hasattr(cause, "str") else str(error)
