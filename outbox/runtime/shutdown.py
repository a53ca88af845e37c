"""Ask a long-running process to stop, by signal."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType


class StopSignal(threading.Event):
    """An event that the first SIGTERM or SIGINT sets; the second one ends the process at once.

    Leaving at once is safe: leases run out and what was not recorded is done again.
    """

    def install(self) -> None:
        """Take over SIGTERM and SIGINT. Must run in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.is_set():
            # No cleanup: the user has asked twice. 143 and 130 are what a shell reports.
            os._exit(128 + number)
        self.set()
