"""Ask a long-running process to stop, by signal."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopSignal(threading.Event):
    """An event that the first SIGTERM or SIGINT sets; the second one ends the process at once.

    Leaving at once is safe: leases run out and what was not recorded is done again.
    """

    def __init__(self) -> None:
        """Not listening yet."""
        super().__init__()
        self._asked = False

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT over for a while, and give them back.

        Does nothing in another thread than the main one, since Python lets no other set handlers.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._asked:
            # No cleanup: the user has asked twice. 143 and 130 are what a shell reports.
            os._exit(128 + number)
        self._asked = True
        # Not here: the interrupted main thread may hold the lock that `set` takes.
        threading.Thread(target=self.set).start()
