"""The fingerprint: is the content the same? (The id answers: is it the same message?)

BLAKE2b with 128 bits over topic, key and canonical body. JSON is canonicalised after RFC 8785
(members sorted, one spelling a number), so that white space or member order is no other content;
other bodies count byte for byte. One deviation: an integer keeps all its digits, where RFC 8785
would round it to a double, since two order numbers above 2**53 must not look equal.
"""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Final

from outbox.wire import codecs
from outbox.wire.errors import DecodeError
from outbox.wire.message import Message

VERSION: Final = 1
"""Version of the algorithm. Fingerprints of different versions say nothing about each other."""

SIZE: Final = 16


def fingerprint(message: Message) -> bytes:
    """16 bytes that are equal for equal content. Raises `DecodeError` if a JSON body is not JSON.

    Id, source, time and headers are left out: a resent message keeps its content.
    """
    digest = hashlib.blake2b(digest_size=SIZE)
    for part in (_utf8(message.topic), _utf8(message.key), _canonical_body(message)):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def _canonical_body(message: Message) -> bytes:
    if codecs.media_type(message.content_type) != codecs.JSON:
        return message.body
    try:
        return _utf8(canonical_json(message.payload))
    except RecursionError as error:
        raise DecodeError("The body nests too deeply to be compared.") from error


def canonical_json(value: object) -> str:
    """RFC 8785 text of decoded JSON (see the module for the deviation)."""
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda item: _utf16_order(item[0]))
        return "{" + ",".join(f"{_text(k)}:{canonical_json(v)}" for k, v in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical_json, value)) + "]"
    if isinstance(value, float):
        return _number(value)
    return _text(value)


def _utf8(text: str) -> bytes:
    # JSON may escape half of a surrogate pair; it is content like any other.
    return text.encode("utf-8", "surrogatepass")


def _utf16_order(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """ECMAScript's Number::toString, which RFC 8785 section 3.2.2.3 prescribes."""
    if value == 0:
        return "0"
    sign, digit_tuple, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits = "".join(map(str, digit_tuple))
    point = len(digits) + int(exponent)
    if len(digits) <= point <= 21:  # noqa: PLR2004 - the figures of the ECMAScript algorithm
        text = digits + "0" * (point - len(digits))
    elif 0 < point <= 21:  # noqa: PLR2004
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:  # noqa: PLR2004
        text = "0." + "0" * -point + digits
    else:
        mantissa = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
        text = f"{mantissa}e{point - 1:+d}"
    return "-" + text if sign else text
