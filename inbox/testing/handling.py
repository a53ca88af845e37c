"""Helpers for tests of handlers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from django.test import override_settings

from inbox import registry
from inbox.delivery import Delivery, Outcome
from inbox.processing import Processor
from outbox.runtime.settings import merged
from outbox.wire import Message

__all__ = ["deliver", "handlers", "override_inbox"]


def deliver(message: Message, group: str | None = None, *, raise_errors: bool = False) -> Outcome:
    """Bring a message to a group, through the wire format and the whole inbox.

    Without ``group`` the topic must have handlers in one group only, else `ValueError` names them.
    Returns an object with ``disposition``, ``result`` and ``error``; with ``raise_errors`` what the
    handler raised is raised here, after its failure was recorded. Works in Django's `TestCase` and
    `TransactionTestCase`; a second call with the same message is a duplicate.
    """
    outcome = Processor().handle(Delivery.of(message, group or _only_group(message.topic)))
    if raise_errors and outcome.error is not None:
        raise outcome.error
    return outcome


@contextlib.contextmanager
def handlers() -> Iterator[None]:
    """Start with no handler at all; those registered inside the block are gone after it."""
    registered = registry.swap({})
    try:
        yield
    finally:
        registry.swap(registered)


def override_inbox(**keys: Any) -> override_settings:
    """`override_settings` for some keys of INBOX; nested dicts are merged, all else is replaced."""
    return override_settings(INBOX=merged("INBOX", keys))


def _only_group(topic: str) -> str:
    groups = registry.groups(topic)
    if len(groups) == 1:
        return groups[0]
    found = ", ".join(groups) or "none"
    message = f"Name the group: topic {topic!r} has handlers in {found}."
    raise ValueError(message)
