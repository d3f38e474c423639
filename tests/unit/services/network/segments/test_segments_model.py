"""Documents of segments: what is valid, and how each fault is named."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire, to_wire
from services.network.segments.model import (
    ADDRESSES_MAX,
    PEERS_MAX,
    PORTS_MAX,
    RULES_MAX,
    SegmentDocument,
    link_local,
    parse_ports,
)
from tests.unit.services.network.segments.segments_samples import document, interface, rule


def test_a_document_survives_the_wire() -> None:
    """What is sent is what arrives, limits included."""
    full = rule(
        "in",
        *(f"10.0.{number}.0/24" for number in range(PEERS_MAX)),
        protocol="tcp",
        ports=tuple(str(number) for number in range(1, PORTS_MAX + 1)),
        name="all.names_that-are allowed",
    )
    found = document(
        interface(
            1,
            *(full for _ in range(RULES_MAX)),
            addresses=tuple(f"fd00::{number:x}" for number in range(1, ADDRESSES_MAX + 1)),
            labels=("a", "b-1"),
            dhcp=True,
        ),
        guarded=("vnet*", "tap0"),
        trusted=("eth1",),
        elsewhere={"c": ("10.9.9.9", "fd01::1")},
    )

    assert from_wire(SegmentDocument, to_wire(found)) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a" * 16}, "a link name has 1 to 15"),
        ({"name": ""}, "a link name has"),
        ({"name": "vnet*"}, "a link name has"),
        ({"mac": "52:54:00:00:00:0G"}, "vnet1: mac is"),
        ({"mac": "52:54:00:00:00:AA"}, "small letters"),
        ({"mac": "53:54:00:00:00:01"}, "multicast"),
        ({"addresses": ["10.20.0.1/24"]}, "vnet1: addresses has '10.20.0.1/24', which is no"),
        ({"addresses": ["224.0.0.1"]}, "can't be a source"),
        ({"addresses": ["0.0.0.0"]}, "can't be a source"),
        ({"addresses": ["127.0.0.1"]}, "can't be a source"),
        ({"addresses": [f"10.0.0.{n}" for n in range(1, 18)]}, "addresses has 17 entries"),
        ({"labels": ["Web"]}, "vnet1: labels has 'Web'"),
        ({"labels": [f"l{n}" for n in range(17)]}, "labels has 17 entries"),
        ({"labels": ["a" * 33]}, "1 to 32 small letters"),
        ({"rules": [{"direction": "up", "peers": ["any"]}]}, "one of in, out"),
        ({"rules": [{"direction": "in", "peers": []}]}, "peers has 0 entries; 1 to 64"),
        ({"rules": [{"direction": "in", "peers": ["any"] * 65}]}, "peers has 65 entries"),
        ({"rules": [{"direction": "in", "peers": ["somebody"]}]}, "write label:<name>"),
        ({"rules": [{"direction": "in", "peers": ["10.0.0.1/8"]}]}, "host bits set"),
        ({"rules": [{"direction": "in", "peers": ["label:"]}]}, "a label has"),
        ({"rules": [{"direction": "in", "peers": ["any"], "ports": ["80"]}]}, "ports need"),
        ({"rules": [{"direction": "in", "peers": ["any"], "name": "a\nb"}]}, "a rule's name"),
        ({"rules": [{"direction": "in", "peers": ["any"]}] * 65}, "rules has 65 entries"),
        ({"dhcp": "yes"}, "expected a value of type bool"),
    ],
)
def test_every_fault_of_an_interface_is_named(change: dict[str, Any], message: str) -> None:
    """The message says which interface, which field, and what is allowed."""
    wire = {"interfaces": [{"name": "vnet1", "mac": "52:54:00:00:00:01", **change}]}

    with pytest.raises(RemoteProtocolError) as caught:
        from_wire(SegmentDocument, wire)

    assert message in str(caught.value)
    assert "interfaces[0]" in str(caught.value)


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        ({"guarded": ["*"]}, "guarded has '*'"),
        ({"guarded": ["v*t"]}, "guarded has 'v*t'"),
        ({"guarded": ["vnet*"] * 17}, "guarded has 17 entries"),
        ({"trusted": ["eth 0"]}, "trusted has 'eth 0'"),
        ({"elsewhere": {"app": ["nowhere"]}}, "elsewhere.app has 'nowhere'"),
        ({"elsewhere": {"App": []}}, "elsewhere has 'App'"),
        ({"color": 1}, "unknown field"),
    ],
)
def test_every_fault_of_the_document_is_named(wire: dict[str, Any], message: str) -> None:
    """The message names the section."""
    with pytest.raises(RemoteProtocolError) as caught:
        from_wire(SegmentDocument, wire)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("other", "thing"),
    [
        ({"name": "vnet1"}, "name vnet1"),
        ({"mac": "52:54:00:00:00:01"}, "mac 52:54:00:00:00:01"),
        ({"addresses": ("10.20.0.1",)}, "address 10.20.0.1"),
    ],
)
def test_what_two_interfaces_share_is_refused(other: dict[str, Any], thing: str) -> None:
    """Names, hardware addresses and IP addresses belong to one interface."""
    with pytest.raises(ValueError, match=f"vnet1 and .* have the same {thing}"):
        document(interface(1), interface(2, **other))


def test_a_label_that_nobody_carries_is_refused_with_the_closest_one() -> None:
    """A mistyped label would silently close a port."""
    with pytest.raises(ValueError, match="label aap, which nobody carries; did you mean app"):
        document(interface(1, rule("in", "label:aap")), interface(2, labels=("app",)))


def test_labels_count_members_here_and_elsewhere() -> None:
    """Addresses of other hosts belong to a label too; link-local ones do not."""
    found = document(
        interface(1, labels=("app",), addresses=("10.20.0.1", "fd00::1")),
        elsewhere={"app": ("10.20.0.9",)},
    )

    assert [str(a) for a in found.members["app"]] == ["10.20.0.1", "10.20.0.9", "fd00::1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", (1, 1)), ("65535", (65535, 65535)), ("8000-8099", (8000, 8099)), ("5-5", (5, 5))],
)
def test_ports_are_one_or_a_range(text: str, expected: tuple[int, int]) -> None:
    """Both limits are allowed."""
    assert parse_ports(text) == expected


@pytest.mark.parametrize("text", ["0", "65536", "90-80", "-1", "http", "80,81", "", "1-", "٣"])
def test_other_ports_are_refused(text: str) -> None:
    """The message says what to write."""
    with pytest.raises(ValueError, match="write 443, or 8000-8099"):
        parse_ports(text)


def test_the_link_local_address_is_that_of_the_hardware_address() -> None:
    """RFC 4291 appendix A: the example of its text, with the bit turned over."""
    assert str(link_local("34:56:78:9a:bc:de")) == "fe80::3656:78ff:fe9a:bcde"
    own = interface(1, addresses=("fd00::1",)).sources
    assert [str(address) for address in own] == ["fd00::1", "fe80::5054:ff:fe00:1"]
    assert [str(a) for a in interface(1).sources] == ["10.20.0.1"]
