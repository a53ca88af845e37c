"""How long to wait before the next attempt."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter, for stored due times and for reconnecting.

    The delay before attempt n+1 is uniform between 0 and ``base * factor ** (n - 1)``, at most
    ``max``. Full jitter spreads retries after an outage (M. Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015). Raises `ValueError` for bounds that make no sense.
    """

    base: timedelta = timedelta(seconds=1)
    factor: int | float = 2
    max: timedelta = timedelta(hours=1)

    def __post_init__(self) -> None:
        if self.base <= timedelta(0) or self.max < self.base or self.factor < 1:
            message = "a backoff needs 0 < BASE <= MAX and FACTOR >= 1."
            raise ValueError(message)

    def ceiling(self, attempts: int) -> timedelta:
        """The longest wait after this many failed attempts (1 is the first)."""
        # The exponent is bounded because a float overflows long before a patient message gives up.
        seconds = self.base.total_seconds() * self.factor ** min(attempts - 1, 64)
        return min(timedelta(seconds=min(seconds, self.max.total_seconds())), self.max)

    def delay(self, attempts: int) -> timedelta:
        """The wait after this many failed attempts (1 is the first)."""
        # Spreading load needs no cryptographic randomness.
        return self.ceiling(attempts) * random.random()  # noqa: S311
