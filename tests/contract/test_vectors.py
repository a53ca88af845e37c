"""Golden vectors of the wire contract. They never change: producers and consumers of different
versions, and other languages, must agree on them."""

import base64
import datetime as dt
import hashlib
import json
import uuid
from pathlib import Path

import pytest

from outbox import wire
from outbox.wire import Message, headers
from outbox.wire.fingerprint import canonical_json

FILES = sorted((Path(__file__).parent / "vectors").glob("*.json"))
PREFIXES = {"kafka": headers.KAFKA_PREFIX, "rabbitmq": headers.RABBITMQ_PREFIX}


def test_the_vectors_are_there():
    assert len(FILES) == 7


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def vector(request):
    return json.loads(request.param.read_text())


def body_of(vector):
    if "body_base64" in vector:
        return base64.b64decode(vector["body_base64"])
    return vector["body"].encode()


def message_of(vector):
    values = vector["message"]
    return Message(
        id=uuid.UUID(values["id"]),
        topic=values["topic"],
        body=body_of(vector),
        source=values["source"],
        time=dt.datetime.fromisoformat(values["time"]),
        key=values["key"],
        content_type=values["content_type"],
        headers=values["headers"],
    )


def test_the_payload_becomes_this_body(vector):
    content_type = vector["message"]["content_type"]
    payload = vector["payload"] if "payload" in vector else body_of(vector)
    assert wire.encode(payload, content_type) == body_of(vector)
    assert wire.decode(body_of(vector), content_type) == payload


@pytest.mark.parametrize("broker", PREFIXES)
def test_the_message_becomes_these_headers(vector, broker):
    assert wire.to_headers(message_of(vector), PREFIXES[broker]) == vector["headers"][broker]


@pytest.mark.parametrize("broker", PREFIXES)
def test_these_headers_become_the_message(vector, broker):
    assert wire.from_headers(vector["headers"][broker], body_of(vector)) == message_of(vector)


def test_fingerprint(vector):
    assert wire.fingerprint(message_of(vector)).hex() == vector["fingerprint"]


def test_the_fingerprint_is_what_its_description_says(vector):
    canonical = body_of(vector)
    if "canonical" in vector:
        assert canonical_json(message_of(vector).payload) == vector["canonical"]
        canonical = vector["canonical"].encode()
    parts = [vector["message"]["topic"].encode(), vector["message"]["key"].encode(), canonical]
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    assert digest.hexdigest() == vector["fingerprint"]
