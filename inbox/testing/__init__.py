"""Helpers for a project's own tests. Nothing here is imported by the app, nor needs pytest."""

from inbox.testing.consumer_contract import ConsumerContract
from inbox.testing.handling import deliver, handlers, override_inbox

__all__ = ["ConsumerContract", "deliver", "handlers", "override_inbox"]
