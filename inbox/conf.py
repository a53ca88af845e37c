"""The INBOX setting: typed, validated, with the reason of each default."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from django.conf import settings as django_settings

from outbox.runtime.backoff import Backoff
from outbox.runtime.drivers import BrokerSettings, from_url
from outbox.runtime.settings import read


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """One entry of GROUPS; a group without an entry has the defaults."""

    broker: str = "default"
    prefetch: int = 100
    """Deliveries handed out ahead: hides the network, and bounds what a crash repeats."""
    database: str | None = None
    """Alias of the handlers' transaction and of the group's rows; None asks the routers."""

    def __post_init__(self) -> None:
        if self.prefetch < 1:
            message = "PREFETCH must be at least 1."
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class RetryBackoff(Backoff):
    """When a failed message runs again: a business effect should not wait for an hour."""

    max: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class InboxSettings:
    """INBOX as the code sees it. Raises `ValueError` for values that make no sense."""

    brokers: Mapping[str, BrokerSettings] = field(default_factory=dict)
    """May be empty where only `inbox.process` is used."""
    groups: Mapping[str, GroupSettings] = field(default_factory=dict)
    max_attempts: int = 10
    """Runs of a handler before its message is dead: about half an hour with the default backoff."""
    backoff: RetryBackoff = field(default_factory=RetryBackoff)
    max_body: int = 10_000_000
    """Bytes. Ten times what an outbox sends: a bound for hostile input, not a policy."""

    def __post_init__(self) -> None:
        for name in ("max_attempts", "max_body"):
            if getattr(self, name) < 1:
                message = f"{name.upper()} must be at least 1."
                raise ValueError(message)

    def group(self, name: str) -> GroupSettings:
        """The settings of a group."""
        return self.groups.get(name) or GroupSettings()


_BACKENDS: Final = {
    "amqp": "inbox.brokers.rabbitmq.RabbitMQConsumer",
    "amqps": "inbox.brokers.rabbitmq.RabbitMQConsumer",
    "kafka": "inbox.brokers.kafka.KafkaConsumer",
    "memory": "inbox.brokers.memory.MemoryConsumer",
}


def broker_from_url(url: str) -> dict[str, object]:
    """Build an entry of INBOX['BROKERS'] from a URL such as ``amqp://host/?queue_type=classic``.

    For settings modules. Raises `InvalidBroker`, an `ImproperlyConfigured`.
    """
    return from_url(url, _BACKENDS)


@functools.cache
def get_settings() -> InboxSettings:
    """The validated settings, read on first use. Raises `ImproperlyConfigured`.

    Without INBOX the defaults hold: a project that calls `inbox.process` itself needs no setting.
    """
    if getattr(django_settings, "INBOX", None) is None:
        return InboxSettings()
    return read("INBOX", InboxSettings)


def reload(*, setting: str, **_kwargs: object) -> None:
    """Forget what was read, when a test overrides INBOX (receiver of ``setting_changed``)."""
    if setting == "INBOX":
        get_settings.cache_clear()
