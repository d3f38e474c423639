"""Networks documents as texts: what is taken, and where a mistake is said to be."""

from __future__ import annotations

import json

import pytest

from protocol.records import to_wire
from services.network.networks.errors import NetworksDocumentError
from services.network.networks.model import DriftPolicy, NetworksDocument
from services.network.networks.parse import FORMAT, parse_networks, render_networks
from services.network.networks.subnets import SubnetMode

WHOLE = """
drift: report
networks:
- name: guests
  bridge: br-guests
  mtu: 1450
  addresses: ["fd00:20::1/64"]
  ports: [eth1]
  vlans: [{link: eth2, id: 20}]
  vxlans:
  - {vni: 4020, local: 192.0.2.10, remotes: [192.0.2.11, 192.0.2.12]}
  subnets:
  - gateway: 10.20.0.1/24
    mode: nat
    dhcp:
      first: 10.20.0.100
      last: 10.20.0.199
      lease_s: 7200
      reservations: [{mac: 52:54:00:00:00:01, address: 10.20.0.11, name: web-1}]
    dns: {domain: guests.internal, upstreams: [192.0.2.53]}
- name: storage
  bridge: br-storage
  mtu: null
  vxlans: [{vni: 7, local: 192.0.2.10, group: 239.1.1.7, link: eth0, port: 8472, name: st7}]
"""
HEAD = "networks:\n- name: a\n  bridge: br-a\n"


def read(text: str) -> NetworksDocument:
    """The document of a text."""
    return parse_networks(text, "net.yaml")


def test_a_whole_document_is_read() -> None:
    """Numbers, addresses and texts are what their fields want, whatever YAML thinks of them."""
    document = read(WHOLE)

    assert document.drift is DriftPolicy.REPORT
    guests, storage = document.networks
    assert guests.mtu == 1450
    assert guests.bridge_addresses == ("fd00:20::1/64", "10.20.0.1/24")
    assert [link.link_name for link in guests.made_ports] == ["eth2.20", "vx4020"]
    subnet = guests.subnets[0]
    assert subnet.mode is SubnetMode.NAT
    assert subnet.dhcp is not None
    assert subnet.dhcp.lease_s == 7200
    assert subnet.dhcp.reservations[0].mac == "52:54:00:00:00:01"
    assert storage.mtu is None
    assert storage.vxlans[0].link_name == "st7"


def test_a_document_survives_its_own_texts() -> None:
    """As YAML and as JSON it is read equal, and from the wire too."""
    document = read(WHOLE)

    assert read(render_networks(document)) == document
    assert read(json.dumps(to_wire(document))) == document
    assert FORMAT.from_wire(to_wire(document)) == document


def test_an_empty_document_is_one() -> None:
    """It wants nothing, which deletes what was there."""
    assert read("networks: []") == NetworksDocument()
    assert read("{}") == NetworksDocument()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no document"),
        ("{}\n---\n{}", "2 documents"),
        ("networks: [", "no YAML in line"),
        ("nets: []", "line 1: has an unknown field 'nets'"),
        (HEAD + "  stp: true", "line 4: networks[0] has an unknown field 'stp'"),
        (HEAD + "  vlans:\n  - {link: eth1, id: 2, tag: 3}", "line 5: networks[0].vlans[0] has an"),
        ("networks:\n- name: a", "line 2: networks[0] lacks bridge"),
        ("drift: ignore", "line 1: drift: expected one of repair, report"),
        ("networks:\n- {name: A, bridge: b}", "line 2: networks[0]: name is 'A'"),
        ("networks:\n- {name: a, bridge: a-much-too-long-name}", "bridge is"),
        (HEAD + "  mtu: 100", "line 4: networks[0]: mtu is 100; expected 576 to 65535"),
        (HEAD + "  mtu: big", "line 4: networks[0].mtu: expected a value of type int"),
        (HEAD + "  addresses: [10.0.0.1]", "addresses[0] is '10.0.0.1'; it needs a prefix"),
        (HEAD + "  addresses: [10.0.0.0/24]", "the network's own"),
        (HEAD + "  addresses: [224.0.0.1/24]", "no host can have"),
        (HEAD + "  vlans: [{link: eth1, id: 4095}]", "id is 4095; expected 1 to 4094"),
        (HEAD + "  vlans: [{link: a-long-link-ab, id: 20}]", "name is 'a-long-link-ab.20'"),
        (HEAD + "  vxlans: [{vni: 0, local: 192.0.2.1}]", "vni is 0"),
        (HEAD + "  vxlans: [{vni: 1, local: x}]", "local is 'x', which is no address"),
        (HEAD + "  vxlans: [{vni: 1, local: 192.0.2.1, remotes: [192.0.2.1]}]", "host itself"),
        (HEAD + "  vxlans: [{vni: 1, local: 192.0.2.1, remotes: ['fd00::1']}]", "differ in family"),
        (
            HEAD + "  vxlans: [{vni: 1, local: 192.0.2.1, remotes: [192.0.2.2, 192.0.2.2]}]",
            "remotes[1]: 192.0.2.2 is said by remotes[0] already",
        ),
        (
            HEAD + "  vxlans: [{vni: 1, local: 192.0.2.1, remotes: [192.0.2.2], group: 239.1.1.1}]",
            "exclude each other",
        ),
        (HEAD + "  vxlans: [{vni: 1, local: 192.0.2.1, group: 192.0.2.9}]", "a multicast address"),
        (HEAD + "  subnets: [{gateway: 10.0.0.1/31}]", "no room for guests"),
        (HEAD + "  subnets: [{gateway: 10.0.0.1/24, mode: open}]", "expected one of nat, routed"),
        (
            HEAD + "  subnets:\n  - gateway: 10.0.0.1/24\n    dhcp: {}",
            "line 6: networks[0].subnets",
        ),
        (
            HEAD + "  subnets: [{gateway: 10.0.0.1/24, dhcp: {first: 10.0.1.1, last: 10.0.1.9}}]",
            "dhcp.first: 10.0.1.1 is not within 10.0.0.0/24",
        ),
        (
            HEAD + "  subnets: [{gateway: 10.0.0.5/24, dhcp: {first: 10.0.0.1, last: 10.0.0.9}}]",
            "the range holds the gateway",
        ),
        (
            HEAD + "  subnets: [{gateway: 10.0.0.5/24, dhcp: {first: 10.0.0.9, last: 10.0.0.7}}]",
            "is not before last",
        ),
        (
            HEAD + "  subnets: [{gateway: 10.0.0.1/24, dhcp: {reservations: "
            "[{mac: 52:54:00:00:00:01, address: 10.0.0.1}]}}]",
            "is the gateway itself",
        ),
        (
            HEAD + "  subnets: [{gateway: 10.0.0.1/24, dhcp: {reservations: "
            "[{mac: 52:54:00:00:00:01, address: 10.0.0.2}, "
            "{mac: 52:54:00:00:00:01, address: 10.0.0.3}]}}]",
            "reservations[1].mac: 52:54:00:00:00:01 is said by reservations[0].mac already",
        ),
        (HEAD + "  subnets: [{gateway: 10.0.0.1/24, dns: {domain: A_b}}]", "domain is 'A_b'"),
        (HEAD + "  subnets: [{gateway: 10.0.0.1/24, dns: {upstreams: [x]}}]", "upstreams[0] is"),
        (
            HEAD + "- {name: a, bridge: b}",
            "line 4: networks[1].name: a is said by networks[0].name",
        ),
        (HEAD + "- {name: b, bridge: br-a}", "networks[1].bridge: br-a is said by networks[0]"),
        (
            HEAD + "  vxlans: [{vni: 5, local: 192.0.2.1}]\n"
            "- {name: b, bridge: b, vxlans: [{vni: 5, local: 192.0.2.1, name: x}]}",
            "networks[1].vxlans[0].vni: VNI 5 is said by networks[0].vxlans[0].vni already",
        ),
        (
            HEAD + "  vlans: [{link: e, id: 5}]\n"
            "- {name: b, bridge: b, vlans: [{link: e, id: 5, name: x}]}",
            "VLAN 5 on e is said by networks[0].vlans[0].id already",
        ),
        (HEAD + "  ports: [e]\n- {name: b, bridge: b, ports: [e]}", "networks[1].ports[0]: e is"),
        (HEAD + "  ports: [b]\n- {name: b, bridge: b}", "line 4: networks[0].ports[0]: b is made"),
        (
            HEAD + "  addresses: [10.0.0.1/24]\n- {name: b, bridge: b, addresses: [10.0.0.1/24]}",
            "networks[1].addresses[0]: 10.0.0.1 is said by networks[0].addresses[0] already",
        ),
        (
            HEAD + "  addresses: [10.0.0.1/8]\n- {name: b, bridge: b, addresses: [10.1.0.1/24]}",
            "line 5: networks[1].addresses[0]: 10.1.0.1/24 overlaps 10.0.0.1/8 of networks[0]",
        ),
        (
            HEAD + "  subnets: [{gateway: 10.0.0.1/24}, {gateway: 10.0.0.2/24}]",
            "networks[0].subnets[1].gateway: the subnet 10.0.0.0/24 is said by networks[0].subnets",
        ),
        (
            HEAD
            + "  vlans: [{link: b, id: 5}]\n- {name: b, bridge: b, vlans: [{link: br-a, id: 6}]}",
            "is carried by",
        ),
        (
            HEAD + "  vlans: [{link: x, id: 5}, {link: x.5, id: 6, name: y}]",
            "networks[0].vlans[1].link: x.5 is a port of br-a",
        ),
    ],
)
def test_a_mistake_is_said_with_its_place(text: str, expected: str) -> None:
    """The message names the text, the line, the key's path and what is expected."""
    with pytest.raises(NetworksDocumentError) as caught:
        read(text)

    assert caught.value.message.startswith("net.yaml: ")
    assert expected in caught.value.message


def test_several_addresses_of_one_network_may_be_on_one_bridge() -> None:
    """They are no overlap; nor are link-local networks, which every link has."""
    read(
        HEAD + "  addresses: [10.0.0.2/24, 'fe80::1/64']\n  subnets: [{gateway: 10.0.0.1/24}]\n"
        "- {name: b, bridge: b, addresses: ['fe80::1/64']}"
    )
