"""Run the loops of a long-running command side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait


def run_all(stop: threading.Event, loops: Sequence[Callable[[], None]]) -> None:
    """Run each loop in a thread of its own until all have ended.

    An exception in one sets ``stop``, so that the others end too, and is raised here: a process
    with a dead thread must not look alive.
    """
    with ThreadPoolExecutor(max_workers=len(loops)) as pool:
        futures = [pool.submit(loop) for loop in loops]
        wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.done() and future.exception() for future in futures):
            stop.set()
    for future in futures:
        future.result()
