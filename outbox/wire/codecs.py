"""Content type → how a payload becomes bytes and bytes become a payload."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from outbox.wire.errors import DecodeError, EncodeError

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Codec:
    """One content type. ``encode`` raises `EncodeError`, ``decode`` raises `DecodeError`."""

    encode: Callable[[object], bytes]
    decode: Callable[[bytes], object]


def _json_default(value: object) -> object:
    """JSON for the types that business rows hold and the json module does not know."""
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    message = (
        f"a {type(value).__qualname__} is not JSON; give text, numbers, booleans, None, lists, "
        "mappings, dates, Decimal or UUID"
    )
    raise TypeError(message)


_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_json_default
)


def _refuse_constant(name: str) -> object:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _parse_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        message = f"{text[:40]} is out of the range of a number"
        raise ValueError(message)
    return value


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_parse_float)


def _encode_json(payload: object) -> bytes:
    try:
        return _encoder.encode(payload).encode()
    except (TypeError, ValueError, RecursionError) as error:
        message = f"The payload cannot be written as JSON: {error}."
        raise EncodeError(message) from error


def _decode_json(body: bytes) -> object:
    try:
        return _decoder.decode(body.decode())
    except (ValueError, RecursionError) as error:
        message = f"The body is not JSON: {error}."
        raise DecodeError(message) from error


CODECS: Mapping[str, Codec] = MappingProxyType({JSON: Codec(_encode_json, _decode_json)})


def media_type(content_type: str) -> str:
    """The type alone, in lower case: ``Text/plain; charset=utf-8`` → ``text/plain``."""
    return content_type.partition(";")[0].strip().lower()


def codec_for(content_type: str) -> Codec | None:
    """The codec of a content type, or None: then the payload is the body's bytes."""
    return CODECS.get(media_type(content_type))


def encode(payload: object, content_type: str) -> bytes:
    """Turn a payload into the bytes that every consumer will see.

    A content type without a codec takes ``bytes`` as they are. Raises `EncodeError`.
    """
    codec = codec_for(content_type)
    if codec is not None:
        return codec.encode(payload)
    if isinstance(payload, bytes):
        return payload
    message = f"There is no codec for {content_type!r}: give the payload as bytes, or use {JSON!r}."
    raise EncodeError(message)


def decode(body: bytes, content_type: str) -> object:
    """Turn bytes back into a payload; the bytes themselves where no codec is known.

    Raises `DecodeError`.
    """
    codec = codec_for(content_type)
    return body if codec is None else codec.decode(body)
