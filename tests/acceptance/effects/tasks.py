from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from inbox.celery import inbox_task
from tests.acceptance.effects.models import Effect


def take_effect(message):
    Effect.objects.create(number=message.payload["number"])


@inbox_task(group="effects")
def work(message):
    take_effect(message)
    time.sleep(message.payload.get("seconds", 0))


@inbox_task(group="effects")
def kill(message):
    """End the process that runs it, each time; a file counts how often."""
    take_effect(message)
    note_run(message)
    os.kill(os.getpid(), signal.SIGKILL)


@inbox_task(group="effects")
def fail_until(message):
    """Raise until a file is there."""
    take_effect(message)
    note_run(message)
    if not Path(message.payload["until"]).exists():
        raise LookupError(message.payload["until"])


@inbox_task(group="effects", time_limit=1)
def hang(message):
    take_effect(message)
    note_run(message)
    time.sleep(60)


def note_run(message):
    with Path(message.payload["runs"]).open("a") as file:
        file.write(".")
