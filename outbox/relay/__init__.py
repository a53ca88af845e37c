"""The engine that drains the outbox."""

from outbox.relay.relay import Relay
from outbox.relay.report import DrainReport

__all__ = ["DrainReport", "Relay"]
