"""The OUTBOX setting: typed, validated, with the reason of each default."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from outbox.runtime.backoff import Backoff
from outbox.runtime.settings import read

MARGIN = timedelta(seconds=1)
"""Part of a lease that is kept for settling: one short transaction and a stutter of the machine."""


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """One entry of BROKERS."""

    backend: str
    """Dotted path of the publisher class."""
    url: str = ""
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """The long form of a route's target."""

    broker: str
    address: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutboxSettings:
    """OUTBOX as the code sees it. Raises `ValueError` for values that contradict each other."""

    source: str
    """CloudEvents source, a URI reference: with the id, the identity of a message."""
    brokers: Mapping[str, BrokerSettings]
    routes: Sequence[tuple[str, str | TargetSettings]] = (("*", "default"),)
    """(pattern, target): the first match wins, so the order is visible."""
    require_transaction: bool = True
    max_body: int = 1_000_000
    """Bytes. Below the 1 MiB that brokers take by default, so that publish() fails, not the relay."""
    batch_size: int = 500
    """Rows a claim: past a few hundred, gains are small and redelivery after a crash grows."""
    lease: timedelta = timedelta(seconds=15)
    """Life of a lane's lease: bounds the recovery after a crash."""
    confirm_timeout: timedelta = timedelta(seconds=10)
    """How long a submission may go unanswered before the connection is given up as in doubt."""
    lanes: int = 8
    """Slices of the keys: the most relays that work on one broker at once."""
    poll: tuple[timedelta, timedelta] = (timedelta(seconds=0.2), timedelta(seconds=5))
    """Shortest and longest idle wait between looks at the table."""
    wakeup: Literal["celery"] | None = None
    """Hint to the relay after a commit; without one, latency is the poll's."""
    max_attempts: int = 20
    """Failed hand-overs before a message is dead: about four hours with the default backoff."""
    backoff: Backoff = field(default_factory=Backoff)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[!-~]{1,255}", self.source):
            message = f"SOURCE must be a URI reference such as '/shop', not {self.source!r}."
            raise ValueError(message)
        if "default" not in self.brokers:
            message = "BROKERS must have an entry 'default'."
            raise ValueError(message)
        for pattern, target in self.routes:
            self._check_route(pattern, target if isinstance(target, str) else target.broker)
        if self.lease <= self.confirm_timeout + MARGIN:
            message = (
                f"LEASE ({self.lease}) must exceed CONFIRM_TIMEOUT ({self.confirm_timeout}) by "
                f"more than {MARGIN}: a relay waits that long for the broker, and then settles."
            )
            raise ValueError(message)
        if not timedelta(0) < self.poll[0] <= self.poll[1]:
            message = "POLL must be (shortest, longest) with 0 < shortest <= longest."
            raise ValueError(message)
        for name in ("max_body", "batch_size", "lanes", "max_attempts"):
            if getattr(self, name) < 1:
                message = f"{name.upper()} must be at least 1."
                raise ValueError(message)

    def _check_route(self, pattern: str, broker: str) -> None:
        if broker not in self.brokers:
            near = difflib.get_close_matches(broker, self.brokers, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            message = f"ROUTES sends {pattern!r} to {broker!r}, which is not in BROKERS.{hint}"
            raise ValueError(message)


@functools.cache
def get_settings() -> OutboxSettings:
    """The validated settings, read on first use. Raises `ImproperlyConfigured`."""
    return read("OUTBOX", OutboxSettings)


def reload(*, setting: str, **_kwargs: object) -> None:
    """Forget what was read, when a test overrides OUTBOX (receiver of ``setting_changed``)."""
    if setting == "OUTBOX":
        get_settings.cache_clear()
