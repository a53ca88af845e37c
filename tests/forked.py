"""Run something in a forked child, as a pre-fork server would."""

from outbox.runtime.proving import in_child

__all__ = ["in_child"]
