"""The wire contract that producers and consumers share: public, versioned, without Django."""

from outbox.wire.cloudevents import from_headers, to_headers
from outbox.wire.codecs import decode, encode
from outbox.wire.errors import DecodeError, EncodeError, WireError
from outbox.wire.fingerprint import fingerprint
from outbox.wire.message import Message

__all__ = [
    "DecodeError",
    "EncodeError",
    "Message",
    "WireError",
    "decode",
    "encode",
    "fingerprint",
    "from_headers",
    "to_headers",
]
