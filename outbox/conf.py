"""The OUTBOX setting: typed, validated, with the reason of each default."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal

from outbox.runtime.backoff import Backoff
from outbox.runtime.drivers import BrokerSettings, from_url
from outbox.runtime.settings import ContradictionError, Fault, did_you_mean, read

SLOTS: Final = 64
"""A key belongs to one slot for ever; a lane owns slots, so the number of lanes may change."""

MARGIN: Final = timedelta(seconds=1)
"""Part of a lease that is kept for settling: one short transaction and a stutter of the machine."""


_ALIAS_LENGTH: Final = 100
"""The column that keeps a message's broker."""


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """The long form of a route's target."""

    broker: str
    address: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutboxSettings:
    """OUTBOX as the code sees it. Raises `ContradictionError` for values that cannot be."""

    source: str = field(metadata={"check": "E004", "hint": 'Add "SOURCE": "/shop" to OUTBOX.'})
    """CloudEvents source, a URI reference: with the id, the identity of a message."""
    brokers: Mapping[str, BrokerSettings] = field(
        metadata={"check": "E001", "hint": 'Add "BROKERS": {"default": {"BACKEND": "…"}}.'}
    )
    routes: Sequence[tuple[str, str | TargetSettings]] = (("*", "default"),)
    """(pattern, target): the first match wins, so the order is visible."""
    require_transaction: bool = True
    max_body: int = 1_000_000
    """Bytes, below the 1 MiB that brokers take by default: publish() fails, not the relay."""
    batch_size: int = 500
    """Rows a claim: past a few hundred, gains are small and redelivery after a crash grows."""
    lease: timedelta = timedelta(seconds=15)
    """Life of a lane's lease: bounds the recovery after a crash."""
    confirm_timeout: timedelta = timedelta(seconds=10)
    """How long a submission may go unanswered before the connection is given up as in doubt."""
    lanes: int = 8
    """Slices of the keys: the most relays that work on one broker at once. Change it only while no
    relay runs: lanes of two numbers overlap."""
    poll: tuple[timedelta, timedelta] = (timedelta(seconds=0.2), timedelta(seconds=5))
    """Shortest and longest idle wait between looks at the table."""
    wakeup: Literal["celery"] | None = None
    """Hint to the relay after a commit; without one, latency is the poll's."""
    max_attempts: int = 20
    """Failed hand-overs before a message is dead: about four hours with the default backoff."""
    backoff: Backoff = field(default_factory=Backoff)

    def __post_init__(self) -> None:
        if faults := [*self._faults(), *self._broker_faults()]:
            raise ContradictionError(*faults)

    def _faults(self) -> Iterator[Fault]:
        if not re.fullmatch(r"[!-~]{1,255}", self.source):
            text = f"SOURCE must be a URI reference such as '/shop', not {self.source!r}."
            yield Fault(text, check="E004")
        if self.confirm_timeout <= timedelta(0):
            yield Fault("CONFIRM_TIMEOUT must be more than 0.")
        if self.lease <= self.confirm_timeout + MARGIN:
            yield Fault(
                f"LEASE ({self.lease}) must exceed CONFIRM_TIMEOUT ({self.confirm_timeout}) by "
                f"more than {MARGIN}: a relay waits that long for the broker, and then settles.",
                "Raise OUTBOX['LEASE'] or lower OUTBOX['CONFIRM_TIMEOUT'].",
                "E010",
            )
        if not timedelta(0) < self.poll[0] <= self.poll[1]:
            yield Fault("POLL must be (shortest, longest) with 0 < shortest <= longest.")
        if not 1 <= self.lanes <= SLOTS:
            yield Fault(f"LANES must be 1 to {SLOTS}.")
        for name in ("max_body", "batch_size", "max_attempts"):
            if getattr(self, name) < 1:
                yield Fault(f"{name.upper()} must be at least 1.")

    def _broker_faults(self) -> Iterator[Fault]:
        if "default" not in self.brokers:
            yield Fault("BROKERS must have an entry 'default'.", check="E001")
        for alias in self.brokers:
            if len(alias) > _ALIAS_LENGTH:
                yield Fault(
                    f"An alias in BROKERS has at most {_ALIAS_LENGTH} characters: {alias!r}."
                )
        for pattern, target in self.routes:
            broker = target if isinstance(target, str) else target.broker
            if broker not in self.brokers:
                text = f"ROUTES sends {pattern!r} to {broker!r}, which is not in BROKERS."
                yield Fault(text, did_you_mean(broker, self.brokers), "E003")


_BACKENDS: Final = {
    "amqp": "outbox.brokers.rabbitmq.RabbitMQPublisher",
    "amqps": "outbox.brokers.rabbitmq.RabbitMQPublisher",
    "kafka": "outbox.brokers.kafka.KafkaPublisher",
    "memory": "outbox.brokers.memory.MemoryPublisher",
    "console": "outbox.brokers.console.ConsolePublisher",
}


def broker_from_url(url: str) -> dict[str, object]:
    """Build an entry of OUTBOX['BROKERS'] from a URL such as ``kafka://host:9092?linger.ms=5``.

    For settings modules. Raises `InvalidBroker`, an `ImproperlyConfigured`.
    """
    return from_url(url, _BACKENDS)


@functools.cache
def get_settings() -> OutboxSettings:
    """The validated settings, read on first use. Raises `ImproperlyConfigured`."""
    return read("OUTBOX", OutboxSettings)


def reload(*, setting: str, **_kwargs: object) -> None:
    """Forget what was read, when a test overrides OUTBOX (receiver of ``setting_changed``)."""
    if setting == "OUTBOX":
        get_settings.cache_clear()
