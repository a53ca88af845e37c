"""What py-amqp's errors mean to us, and what a person can do about them."""

from __future__ import annotations

import struct
from typing import Final

from outbox.exceptions import BrokerMisconfigured, BrokerUnavailable
from outbox.runtime.amqp_topology import advice

_REFUSALS: Final = frozenset({311, 402, 403, 404, 406, 530})
"""AMQP 0-9-1 reply codes that time does not cure: too large, no such virtual host, access refused,
not found, precondition failed, not allowed."""

_GARBLED: Final = (struct.error, LookupError, ValueError, TypeError, AttributeError)
"""How py-amqp fails on bytes that it does not understand or on a connection that went away."""

_PUBLISH: Final = (60, 40)
"""Class and method of basic.publish."""

_CURES: Final = {
    403: (
        "Give this account the permission to write to the exchange (rabbitmqctl set_permissions)."
    ),
    404: "Create it (outbox_topology --declare), or correct its ADDRESS in OUTBOX['ROUTES'].",
    406: "Raise the broker's max_message_size, or lower OUTBOX['MAX_BODY'] to it.",
}
"""Reply code to a publish → what to do."""


def translate(prefix: str, error: BaseException) -> BaseException:
    """Our error for one of py-amqp's or the network's; any other as it is."""
    from amqp.exceptions import AMQPError

    text = f"{prefix}: {str(error) or type(error).__name__}"
    code = getattr(error, "reply_code", None)
    if code in _REFUSALS:
        if getattr(error, "method_sig", None) == _PUBLISH:
            cure = _CURES.get(code, "")
            return BrokerMisconfigured(f"{text.rstrip('.')}. {cure}".rstrip())
        return BrokerMisconfigured(text + advice(error))
    if isinstance(error, (AMQPError, OSError, *_GARBLED)):
        return BrokerUnavailable(text)
    return error
