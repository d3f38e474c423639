"""Only bounded, unambiguous msgpack gets in."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, envelope
from protocol.envelope import Envelope, Kind
from protocol.errors import LocalProtocolError, RemoteProtocolError


def nested(depth: int) -> list[object]:
    """Lists in lists."""
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x81\xa1a",
        b"\x01\x02",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x82\xa1a\x01\xa1a\x02",
        b"\xd4\x05\x00",
        b"\xa2\xff\xfe",
        msgpack.packb(list(range(codec.CONTAINER_LENGTH_MAX + 1))),
        msgpack.packb(nested(codec.DEPTH_MAX + 1)),
        b"\x91" * 100_000 + b"\x90",
        bytes(codec.MESSAGE_BYTES_MAX + 1),
    ],
    ids=[
        "empty",
        "reserved",
        "cut",
        "two",
        "huge list",
        "huge text",
        "repeated key",
        "extension",
        "not UTF-8",
        "long list",
        "deep",
        "very deep",
        "too large",
    ],
)
def test_what_is_not_one_bounded_value_is_refused(data: bytes) -> None:
    """Each way to send too much, too deep or something ambiguous."""
    with pytest.raises(RemoteProtocolError):
        codec.decode(data)


def test_the_limits_themselves_are_allowed() -> None:
    """One below each limit gets in."""
    assert codec.decode(codec.encode(nested(codec.DEPTH_MAX - 1))) == nested(codec.DEPTH_MAX - 1)
    longest = list(range(codec.CONTAINER_LENGTH_MAX))
    assert codec.decode(codec.encode(longest)) == longest


def test_too_large_a_message_is_not_sent() -> None:
    """The sender finds out, not the receiver."""
    with pytest.raises(LocalProtocolError, match="over the limit"):
        codec.encode(bytes(codec.MESSAGE_BYTES_MAX))


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Whatever arrives, the only error is that of the protocol."""
    try:
        codec.decode(data)
        envelope.decode(data)
    except RemoteProtocolError:
        pass


GOOD = [1, 1, 7, "method", 1000, "", None]


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, 2),
        (1, 9),
        (1, True),
        (2, -1),
        (2, "7"),
        (3, 5),
        (3, "x" * 129),
        (4, -1),
        (4, envelope.TIMEOUT_MS_MAX + 1),
        (5, None),
        (5, "x" * 129),
    ],
)
def test_an_envelope_with_a_wrong_field_is_refused(index: int, value: object) -> None:
    """Every field of the envelope is checked."""
    fields = [*GOOD[:index], value, *GOOD[index + 1 :]]

    with pytest.raises(RemoteProtocolError):
        envelope.decode(codec.encode(fields))


@pytest.mark.parametrize("fields", [GOOD[:-1], [*GOOD, None], {}, "text"])
def test_an_envelope_of_another_shape_is_refused(fields: object) -> None:
    """Seven fields in a list, nothing else."""
    with pytest.raises(RemoteProtocolError):
        envelope.decode(codec.encode(fields))


def test_an_envelope_survives_the_wire() -> None:
    """Every field arrives."""
    sent = Envelope(Kind.CALL, 7, "method", 1000, "request-1", {"a": [1, "b", None]})

    assert envelope.decode(envelope.encode(sent)) == sent
