"""Errors of the inbox and the signals of handlers. The class docstring is the default message."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from outbox.runtime.drivers import InvalidBroker as InvalidBroker  # noqa: PLC0414 - an export

LONGEST_DELAY: Final = timedelta(days=366)
"""What `Retry` accepts: a later due time is a mistake, or no date that every database can hold."""


class InboxError(Exception):
    """The inbox failed."""

    def __init__(self, message: str | None = None) -> None:
        """Say what happened; without a message, the class docstring does."""
        super().__init__(message or (self.__doc__ or "").strip())


class HandlerNotFound(InboxError):  # noqa: N818 - the words are the message
    """No handler is registered for the topic in this group."""


class HandlerExists(InboxError):  # noqa: N818
    """A group has one handler for a topic: give the second one a group of its own."""


class HandlerSwallowed(InboxError):  # noqa: N818
    """The handler caught a database error, or ended the transaction, and returned.

    Nothing of it can be committed. Let the error out, or wrap the failing part in
    `with transaction.atomic():` and catch it outside of that block.
    """


class ConsumerUnavailable(InboxError):  # noqa: N818
    """The broker cannot be reached: what was not settled is delivered again."""


class HandlerSignal(Exception):  # noqa: N818
    """A handler raises one to say what shall happen to its message; all its writes are undone."""

    def __init__(self, reason: str = "") -> None:
        """Give a reason: a person will read it."""
        super().__init__(reason)
        self.reason = reason


class Retry(HandlerSignal):
    """Run the handler again later; counts as an attempt."""

    def __init__(self, reason: str = "", *, after: timedelta | None = None) -> None:
        """Wait ``after``, or as INBOX['BACKOFF'] says. Raises `ValueError` over a year."""
        super().__init__(reason)
        if after is not None and not timedelta(0) <= after <= LONGEST_DELAY:
            message = f"Retry(after=...) takes 0 to {LONGEST_DELAY.days} days, not {after}."
            raise ValueError(message)
        self.after = after


class Reject(HandlerSignal):
    """Give the message up at once: it is dead until a person decides."""
