import datetime as dt
import decimal
import json
import struct
import uuid

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from outbox import wire
from outbox.wire import DecodeError, EncodeError, Message, from_headers, headers, to_headers
from outbox.wire.cloudevents import is_reserved
from outbox.wire.codecs import JSON
from outbox.wire.fingerprint import canonical_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**53 - 2, 2**53 + 2),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
)
PAYLOADS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz-_ABC019", min_size=1, max_size=20).filter(
    lambda name: not is_reserved(name)
)
MESSAGES = st.builds(
    Message,
    id=st.uuids(),
    topic=st.from_regex(r"[A-Za-z0-9._-]{1,40}", fullmatch=True),
    body=st.binary(max_size=50),
    source=st.from_regex(r"[!-~]{1,40}", fullmatch=True),
    time=st.datetimes(timezones=st.just(dt.UTC)),
    key=TEXT,
    content_type=st.sampled_from([JSON, "text/plain; charset=utf-8", "application/avro", ""]),
    headers=st.dictionaries(NAMES, TEXT, max_size=4),
)


def message(body=b"{}", **changes):
    values = {
        "id": uuid.UUID("0190a0b1-c2d3-7e4f-8a5b-6c7d8e9f0a1b"),
        "topic": "orders.placed",
        "body": body,
        "source": "/shop",
        "time": dt.datetime(2026, 11, 23, 12, 0, 0, 123456, dt.UTC),
        "key": "7",
    }
    return Message(**values | changes)


def of_payload(payload):
    return message(wire.encode(payload, JSON))


def same(one, other):
    """Whether two payloads are one JSON value: an oracle without any canonical form."""
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, float) or isinstance(other, float):
        return as_double(one) == as_double(other) is not None
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


def as_double(value):
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:
        return None


def shuffled(payload, random):
    if isinstance(payload, list):
        return [shuffled(item, random) for item in payload]
    if isinstance(payload, dict):
        names = list(payload)
        random.shuffle(names)
        return {name: shuffled(payload[name], random) for name in names}
    return payload


class TestFingerprint:
    @given(PAYLOADS, st.randoms(use_true_random=False), st.booleans(), st.sampled_from([None, 3]))
    def test_order_space_and_escapes_do_not_change_it(self, payload, random, ascii_only, indent):
        spelled = json.dumps(shuffled(payload, random), ensure_ascii=ascii_only, indent=indent)
        assert wire.fingerprint(message(spelled.encode())) == wire.fingerprint(of_payload(payload))

    @given(PAYLOADS, PAYLOADS)
    def test_other_content_changes_it(self, one, other):
        assume(not same(one, other))
        assert wire.fingerprint(of_payload(one)) != wire.fingerprint(of_payload(other))

    @given(st.tuples(TEXT, TEXT, st.binary()), st.tuples(TEXT, TEXT, st.binary()))
    def test_topic_key_and_body_count_and_do_not_run_into_each_other(self, one, other):
        assume(one != other)
        marks = [
            wire.fingerprint(message(body, topic=topic, key=key, content_type="text/plain"))
            for topic, key, body in (one, other)
        ]
        assert marks[0] != marks[1]

    def test_a_part_that_moves_to_its_neighbour_changes_it(self):
        one = message(b"c", topic="a", key="b", content_type="text/plain")
        other = message(b"", topic="a", key="bc", content_type="text/plain")
        assert wire.fingerprint(one) != wire.fingerprint(other)

    def test_identity_and_metadata_do_not_count(self):
        other = message(
            id=uuid.uuid4(), source="/b", time=dt.datetime.now(dt.UTC), headers={"trace": "1"}
        )
        assert wire.fingerprint(other) == wire.fingerprint(message())

    def test_neighbours_above_two_to_the_53_differ(self):
        marks = {wire.fingerprint(of_payload({"order": 2**53 + n})) for n in range(4)}
        assert len(marks) == 4

    def test_sixteen_bytes(self):
        assert len(wire.fingerprint(message())) == wire.fingerprint.__globals__["SIZE"] == 16

    @pytest.mark.parametrize("body", [b"", b"{", b"NaN", b"-Infinity", b"1e999", b"\xff", b"[1,]"])
    def test_no_json(self, body):
        with pytest.raises(DecodeError):
            wire.fingerprint(message(body))

    @pytest.mark.parametrize("depth", [400, 900, 100_000])
    def test_deep_nesting_is_a_decode_error_or_fine_and_never_another_one(self, depth):
        try:
            mark = wire.fingerprint(message(b"[" * depth + b"]" * depth))
        except DecodeError:
            assert depth > 100
        else:
            assert len(mark) == 16

    def test_lone_surrogates_have_one_too(self):
        assert len(wire.fingerprint(message(rb'"\ud800"', key="\ud800"))) == 16


# RFC 8785, appendix B: the bits of a double and its text.
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


class TestCanonicalJson:
    @pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
    def test_numbers_of_the_rfc(self, bits, text):
        assert canonical_json(struct.unpack(">d", bytes.fromhex(bits))[0]) == text

    def test_example_of_the_rfc(self):
        given_text = (
            rb'{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],'
            rb'"string": "\u20ac$\u000F\u000aA'
            rb"'"
            rb'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}'
        )
        assert canonical_json(wire.decode(given_text, JSON)) == (
            '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
        )

    def test_members_are_sorted_by_utf16_code_units(self):
        names = ["€", "\r", "\ufb33", "1", "😀", "\u0080", "ö"]
        ordered = json.loads(canonical_json(dict.fromkeys(names)))
        assert list(ordered) == ["\r", "1", "\u0080", "ö", "€", "😀", "\ufb33"]

    @given(PAYLOADS)
    def test_is_idempotent_and_keeps_the_value(self, payload):
        text = canonical_json(wire.decode(wire.encode(payload, JSON), JSON))
        again = wire.decode(text.encode(), JSON)
        assert same(again, payload)
        assert canonical_json(again) == text


class TestHeaders:
    @given(MESSAGES, st.sampled_from(headers.PREFIXES))
    def test_round_trip(self, sent, prefix):
        assert from_headers(to_headers(sent, prefix), sent.body) == sent

    def test_time_is_utc_whatever_offset_it_came_with(self):
        fields = to_headers(message(), "ce-") | {"ce-time": "2026-11-23T14:00:00.123456+02:00"}
        assert from_headers(fields, b"").time.isoformat() == "2026-11-23T12:00:00.123456+00:00"

    def test_time_without_an_offset_is_utc(self):
        fields = to_headers(message(), "ce-") | {"ce-time": "2026-11-23 14:00:00"}
        assert from_headers(fields, b"").time.isoformat() == "2026-11-23T14:00:00+00:00"

    def test_no_key_no_header(self):
        assert "ce_partitionkey" not in to_headers(message(key=""), "ce_")

    def test_a_version_is_not_asked_for(self):
        fields = to_headers(message(), "ce_")
        del fields["ce_specversion"]
        assert from_headers(fields, b"{}") == message()

    def test_json_without_a_content_type(self):
        fields = to_headers(message(), "ce_")
        del fields["content-type"]
        assert from_headers(fields, b"{}").payload == {}

    @pytest.mark.parametrize("attribute", ["id", "type", "source", "time"])
    @pytest.mark.parametrize("value", [None, ""])
    def test_missing_attribute(self, attribute, value):
        fields = to_headers(message(), "ce_")
        del fields[f"ce_{attribute}"]
        if value is not None:
            fields[f"ce_{attribute}"] = value
        with pytest.raises(DecodeError, match=f"'{attribute}' is missing"):
            from_headers(fields, b"")

    @pytest.mark.parametrize(
        ("attribute", "value"),
        [
            ("id", "no uuid"),
            ("id", "0190a0b1-c2d3-7e4f-8a5b-6c7d8e9f0a1"),
            ("time", "yesterday"),
            ("time", "2026-13-01T00:00:00Z"),
            ("time", "0001-01-01T00:00:00+23:59"),
            ("time", "9999-12-31T23:59:59-23:59"),
            ("time", "\ud800"),
            ("specversion", "0.3"),
            ("specversion", "2.0"),
        ],
    )
    def test_malformed_attribute(self, attribute, value):
        fields = to_headers(message(), "ce_") | {f"ce_{attribute}": value}
        with pytest.raises(DecodeError, match=f"'{attribute}'"):
            from_headers(fields, b"")

    @given(
        st.dictionaries(
            st.one_of(
                st.builds(
                    str.__add__,
                    st.sampled_from([*headers.PREFIXES, ""]),
                    st.sampled_from(
                        ["id", "source", "type", "time", "partitionkey", "specversion"]
                    ),
                ),
                st.text(max_size=10),
            ),
            st.one_of(
                st.text(max_size=30),
                st.sampled_from(["1.0", "0190a0b1-c2d3-7e4f-8a5b-6c7d8e9f0a1b", "a", JSON]),
                st.datetimes(timezones=st.timezones()).map(dt.datetime.isoformat),
            ),
        ),
        st.one_of(st.binary(), PAYLOADS.map(json.dumps).map(str.encode)),
    )
    def test_junk_is_a_message_or_a_decode_error(self, fields, body):
        try:
            found = from_headers(fields, body)
            assert len(wire.fingerprint(found)) == 16
        except DecodeError:
            return
        assert from_headers(to_headers(found, "ce-"), body).id == found.id


class TestCodec:
    def test_what_business_rows_hold(self):
        payload = {
            "at": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
            "day": dt.date(2026, 1, 2),
            "price": decimal.Decimal("9.90"),
            "order": uuid.UUID(int=1),
        }
        assert wire.decode(wire.encode(payload, JSON), JSON) == {
            "at": "2026-01-02T03:04:05+00:00",
            "day": "2026-01-02",
            "price": "9.90",
            "order": "00000000-0000-0000-0000-000000000001",
        }

    def test_without_spaces_and_in_utf8(self):
        assert wire.encode({"a": ["é", 1]}, JSON) == '{"a":["é",1]}'.encode()

    @pytest.mark.parametrize(
        "payload",
        [{1, 2}, object(), b"bytes", float("nan"), float("inf"), "\ud800", 10**5000, {(1,): 2}],
        ids=lambda payload: type(payload).__name__,
    )
    def test_what_is_no_json(self, payload):
        with pytest.raises(EncodeError, match="cannot be written as JSON"):
            wire.encode(payload, JSON)

    def test_a_payload_that_holds_itself(self):
        payload = []
        payload.append(payload)
        with pytest.raises(EncodeError):
            wire.encode(payload, JSON)

    def test_other_types_take_bytes_as_they_are(self):
        assert wire.encode(b"\x00\xff", "application/avro") == b"\x00\xff"
        assert wire.decode(b"\x00\xff", "application/avro") == b"\x00\xff"
        with pytest.raises(EncodeError, match="no codec for 'application/avro'"):
            wire.encode("text", "application/avro")

    def test_parameters_of_the_type_do_not_matter(self):
        assert message(b"[1]", content_type="Application/JSON; charset=utf-8").payload == [1]
