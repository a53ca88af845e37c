"""UUIDv7 (RFC 9562 section 5.7): unique without a server, and in the order of their making."""

from __future__ import annotations

import os
import secrets
import threading
import time
import uuid

_COUNTER_BITS = 42
_COUNTER_LIMIT = 1 << _COUNTER_BITS


class _Generator:
    """Timestamp, a counter that starts at random each millisecond, 32 random bits.

    RFC 9562 section 6.2 method 1. The clock never steps back: an older millisecond keeps the last
    one, and the counter goes on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._millisecond = 0
        self._counter = 0

    def next(self) -> uuid.UUID:
        with self._lock:
            now = time.time_ns() // 1_000_000
            if now > self._millisecond:
                self._millisecond = now
                # The top bit starts at zero, so that one millisecond has room for 2**41 more.
                self._counter = secrets.randbits(_COUNTER_BITS - 1)
            else:
                self._counter += 1
                if self._counter == _COUNTER_LIMIT:
                    self._millisecond += 1
                    self._counter = secrets.randbits(_COUNTER_BITS - 1)
            millisecond, counter = self._millisecond, self._counter
        value = (millisecond & (1 << 48) - 1) << 80
        value |= 0x7 << 76
        value |= (counter >> 30) << 64
        value |= 0b10 << 62
        value |= (counter & (1 << 30) - 1) << 32
        value |= secrets.randbits(32)
        return uuid.UUID(int=value)


_generator = _Generator()


def _forget_parent() -> None:
    # A forked child with the parent's counter (and maybe its held lock) would repeat its ids.
    global _generator  # noqa: PLW0603
    _generator = _Generator()


os.register_at_fork(after_in_child=_forget_parent)


def uuid7() -> uuid.UUID:
    """A new id, greater than every id made before it in this process. Thread-safe, fork-safe."""
    return _generator.next()
