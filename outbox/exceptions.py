"""Errors of the outbox. The class docstring is the default message."""

from __future__ import annotations

import inspect

from outbox.runtime.drivers import InvalidBroker as InvalidBroker  # noqa: PLC0414 - an export


class OutboxError(Exception):
    """The outbox failed."""

    def __init__(self, message: str | None = None) -> None:
        """Say what happened; without a message, the class docstring does."""
        super().__init__(message or inspect.cleandoc(self.__doc__ or ""))


class NotInTransaction(OutboxError):  # noqa: N818 - the words are the message
    """publish() ran outside a transaction, so message and business rows could part.

    Wrap both in `with transaction.atomic():`, or set OUTBOX['REQUIRE_TRANSACTION'] = False to let
    each publish() be a transaction of its own.
    """


class UnknownTopic(OutboxError):  # noqa: N818
    """No route matches the topic: add one to OUTBOX['ROUTES']."""


class MessageTooLarge(OutboxError):  # noqa: N818
    """The encoded body is larger than OUTBOX['MAX_BODY']."""


class LeaseLost(OutboxError):  # noqa: N818
    """Another relay has taken the lane: what this one did is not recorded and is done again."""


class BrokerError(OutboxError):
    """A broker failed. Drivers raise its children and no third-party error."""


class BrokerUnavailable(BrokerError):  # noqa: N818
    """The broker cannot be reached or is in doubt: retry everything later."""


class BrokerMisconfigured(BrokerError):  # noqa: N818
    """The broker refuses us or its settings: a person must act."""
