"""What the kernel's answers say, and what becomes of answers that say nothing."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.network.errors import NetlinkFailedError
from services.network.model import Link
from services.network.rtnetlink import DumpInterruptedError, Listing

LINK, ADDRESS, ERROR, DONE = 16, 20, 2, 3
MAC = bytes.fromhex("0200000000ff")


def message(kind: int, payload: bytes, flags: int = 0) -> bytes:
    """One message, padded as the kernel does."""
    data = struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload
    return data + bytes(-len(data) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def link_message(flags: int = 0) -> bytes:
    """A bridge that is up."""
    kind = attribute(1, b"bridge\0")
    attributes = (
        attribute(3, b"nc0\0")
        + attribute(1, MAC)
        + attribute(4, struct.pack("=I", 1500))
        + attribute(16, b"\x06")
        + attribute(18 | 0x8000, kind)
        + attribute(20, b"novacron:n1\0")
        + attribute(99, b"of a later kernel")
    )
    return message(LINK, struct.pack("=BxHiII", 0, 1, 7, 1, 0) + attributes, flags)


def address_message(family: int, *values: tuple[int, bytes], index: int = 7) -> bytes:
    """An address of the bridge."""
    head = struct.pack("=BBBBI", family, 24, 0, 0, index)
    return message(ADDRESS, head + b"".join(attribute(*value) for value in values))


def done(code: int = 0, kind: int = DONE) -> bytes:
    """The end of an answer."""
    return message(kind, struct.pack("=i", -code))


def test_a_link_and_its_addresses_are_read() -> None:
    """Everything that the plan looks at is there, unknown attributes and families are passed."""
    own, peer = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    listing = Listing()

    ends = [
        listing.take(
            address_message(socket.AF_INET, (1, peer), (2, own))
            + address_message(socket.AF_INET6, (1, bytes(15) + b"\x01"))
            + address_message(45, (1, b"\x08"))
        ),
        listing.take(done()),
        listing.take(link_message() + done()),
    ]

    assert ends == [False, True, True]
    assert listing.links == [
        Link(
            name="nc0",
            index=7,
            kind="bridge",
            is_up=True,
            operstate="up",
            mac="02:00:00:00:00:ff",
            mtu=1500,
            alias="novacron:n1",
            bridge_index=None,
            addresses=("10.0.0.1/24", "::1/24"),
        )
    ]


def test_an_interrupted_list_is_told_apart() -> None:
    """It may lack links or have some twice, and is worth another attempt."""
    with pytest.raises(DumpInterruptedError):
        Listing().take(link_message(flags=0x10))


@pytest.mark.parametrize("kind", [DONE, ERROR])
def test_an_error_of_the_kernel_is_named(kind: int) -> None:
    """It comes instead of the list, or at its end."""
    with pytest.raises(NetlinkFailedError, match="EMSGSIZE"):
        Listing().take(done(errno.EMSGSIZE, kind))


@pytest.mark.parametrize("cut", [20, 40, 60])
def test_an_answer_that_is_cut_off_is_no_list(cut: int) -> None:
    """A list with a part of a link would look like the whole."""
    with pytest.raises(NetlinkFailedError):
        Listing().take(link_message()[:cut])


@given(st.binary(max_size=64), st.sampled_from([LINK, ADDRESS, DONE, ERROR]))
def test_whatever_comes_ends_in_a_list_or_its_own_error(payload: bytes, kind: int) -> None:
    """Malformed bytes never end in another error."""
    with contextlib.suppress(NetlinkFailedError):
        Listing().take(message(kind, payload))
