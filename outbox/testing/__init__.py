"""Helpers for a project's own tests. Nothing here is imported by the apps, nor needs pytest."""

from outbox.testing.captured import CapturedMessages, captured_messages
from outbox.testing.contracts import PublisherContract, StoreContract
from outbox.testing.draining import drain
from outbox.testing.overriding import override_outbox

__all__ = [
    "CapturedMessages",
    "PublisherContract",
    "StoreContract",
    "captured_messages",
    "drain",
    "override_outbox",
]
