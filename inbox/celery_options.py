"""Which of Celery's options an `inbox_task` sets itself, which it refuses, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FORCED: Final[Mapping[str, tuple[object, str]]] = {
    "acks_late": (True, "a worker that is killed would lose the message"),
    "reject_on_worker_lost": (True, "a pool process that is killed would lose the message"),
    "retry_on_worker_lost": (False, "a copy sent by Celery does not say that it is a repeat"),
    # Celery takes a hard time limit for an end; the attempts in our table are the end.
    "acks_on_timeout": (False, "a task over its hard time limit would lose the message"),
    # Our body fails only where nothing is recorded: then the queue's dead letter exchange, if it
    # has one, must get the message.
    "acks_on_failure": (False, "a message that could not be recorded would be lost"),
    "acks_on_failure_or_timeout": (False, "a message that could not be recorded would be lost"),
    "track_started": (False, "a result backend that is down would fail the task before it runs"),
    "serializer": ("json", "a payload is JSON, and pickle runs code"),
}
"""Options of Celery's that the guarantee rests on, with the reason."""

REFUSED: Final[Mapping[str, str]] = {
    "bind": "the function takes the message alone: a stored retry runs it outside of any request",
    "base": "inbox_task brings its own base class",
    "pydantic": "the function takes the message; validate message.payload in it",
} | dict.fromkeys(
    (
        "autoretry_for",
        "dont_autoretry_for",
        "retry_kwargs",
        "retry_backoff",
        "retry_backoff_max",
        "retry_jitter",
        "max_retries",
        "default_retry_delay",
    ),
    "attempts are counted and retried by the inbox, see INBOX['MAX_ATTEMPTS'] and INBOX['BACKOFF']",
)


def refuse(options: Mapping[str, object]) -> None:
    """Raise `ValueError` for the first option that would break the guarantee."""
    for option, given in options.items():
        if option in REFUSED:
            message = f"inbox_task takes no {option!r}: {REFUSED[option]}."
            raise ValueError(message)
        if option in FORCED and given != FORCED[option][0]:
            value, reason = FORCED[option]
            message = (
                f"inbox_task needs {option}={value!r}, which it sets itself; with {option}="
                f"{given!r} {reason}."
            )
            raise ValueError(message)
