"""Steps as rtnetlink messages, read back by pyroute2, which knows the formats by itself."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from services.network.networks.pack import (
    missing_feature,
    needs,
    pack_lookup,
    pack_probe,
    pack_step,
)
from services.network.networks.steps import Step, StepKind, describe_step

INDEXES = {"eth2": 7, "br-a": 8, "vx7": 9, "eth2.20": 10}
CREATE, EXCLUSIVE, ACK, REPLACE = 0x400, 0x200, 0x004, 0x100


def read(data: bytes, kind: Any = ifinfmsg) -> Any:
    """The message as pyroute2 reads it, which must be all of the data."""
    found = kind(data)
    found.decode()
    assert found["header"]["length"] == len(data)
    return found


def packed(**values: Any) -> Any:
    """A step's message about a link."""
    return read(pack_step(Step(**values), 42, INDEXES))


def details(found: Any) -> Any:
    """What a message says of a link's kind."""
    return found.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")


def test_a_vlan_has_its_id_and_the_link_below() -> None:
    """As ``ip link add link eth2 name eth2.20 type vlan id 20`` says it."""
    found = packed(
        kind=StepKind.CREATE_VLAN,
        link="eth2.20",
        carrier="eth2",
        number=20,
        mac="02:00:00:00:00:01",
        mtu=1450,
    )

    assert found["header"]["flags"] & (CREATE | EXCLUSIVE | ACK) == CREATE | EXCLUSIVE | ACK
    assert found["header"]["sequence_number"] == 42
    assert found.get_attr("IFLA_IFNAME") == "eth2.20"
    assert found.get_attr("IFLA_LINK") == 7
    assert found.get_attr("IFLA_ADDRESS") == "02:00:00:00:00:01"
    assert found.get_attr("IFLA_MTU") == 1450
    assert found.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_KIND") == "vlan"
    assert details(found).get_attr("IFLA_VLAN_ID") == 20


@pytest.mark.parametrize(
    ("local", "group", "suffix"),
    [("192.0.2.1", "239.1.1.1", ""), ("fd00::1", "ff05::7", "6"), ("192.0.2.1", "", "")],
)
def test_a_vxlan_link_has_its_segment_and_addresses(local: str, group: str, suffix: str) -> None:
    """Of either family; the port is in network byte order."""
    found = packed(
        kind=StepKind.CREATE_VXLAN,
        link="vx7",
        carrier="eth2" if group else "",
        number=7,
        local=local,
        group=group,
        port=4789,
        mtu=1450,
    )

    data = details(found)
    assert data.get_attr("IFLA_VXLAN_ID") == 7
    assert data.get_attr(f"IFLA_VXLAN_LOCAL{suffix}") == local
    assert data.get_attr(f"IFLA_VXLAN_GROUP{suffix}") == (group or None)
    assert data.get_attr("IFLA_VXLAN_LINK") == (7 if group else None)
    assert data.get_attr("IFLA_VXLAN_PORT") == 4789


def test_a_new_bridge_gets_another_mtu_first() -> None:
    """The kernel lets a bridge's MTU follow its ports' unless it was changed once."""
    made = packed(kind=StepKind.CREATE_BRIDGE, link="br-b", mtu=1450, mac="02:00:00:00:00:01")
    set_up = packed(kind=StepKind.SET_UP, link="br-a", alias="novacron:n1/a", mtu=1450)

    assert made.get_attr("IFLA_MTU") == 1449
    assert set_up.get_attr("IFLA_MTU") == 1450
    assert set_up.get_attr("IFLA_IFALIAS") == "novacron:n1/a"
    assert (set_up["index"], set_up["flags"] & 1, set_up["change"]) == (8, 1, 1)
    assert not set_up["header"]["flags"] & CREATE


@pytest.mark.parametrize(
    ("kind", "flags", "master"),
    [
        (StepKind.ATTACH, 1, 8),
        (StepKind.DETACH, 0, 0),
        (StepKind.RAISE, 1, None),
        (StepKind.LOWER, 0, None),
    ],
)
def test_a_link_that_was_there_is_changed_by_its_number(
    kind: StepKind, flags: int, master: int | None
) -> None:
    """Not by its name, which may be another link's by then."""
    found = packed(kind=kind, link="eth1", index=3, bridge="br-a")

    assert found["index"] == 3
    assert found.get_attr("IFLA_IFNAME") is None
    assert found["flags"] == flags
    assert found["change"] == (0 if kind is StepKind.DETACH else 1)
    assert found.get_attr("IFLA_MASTER") == master


@pytest.mark.parametrize(("kind", "state"), [(StepKind.STP_OFF, 0), (StepKind.STP_ON, 1)])
def test_the_spanning_tree_is_an_attribute_of_the_bridge(kind: StepKind, state: int) -> None:
    """And the message must not make one."""
    found = packed(kind=kind, link="br-a", index=8)

    assert details(found).get_attr("IFLA_BR_STP_STATE") == state
    assert not found["header"]["flags"] & CREATE


@pytest.mark.parametrize("address", ["10.1.0.1/24", "fd00::1/64"])
def test_an_address_is_added_whether_or_not_it_is_there(address: str) -> None:
    """And removed as it was added."""
    step = Step(kind=StepKind.ADD_ADDRESS, link="br-a", address=address)
    added = read(pack_step(step, 1, INDEXES), ifaddrmsg)
    gone = Step(kind=StepKind.REMOVE_ADDRESS, link="br-a", address=address)
    removed = read(pack_step(gone, 1, INDEXES), ifaddrmsg)

    for found in (added, removed):
        assert found["index"] == 8
        assert f"{found.get_attr('IFA_LOCAL')}/{found['prefixlen']}" == address
    assert added["header"]["flags"] & (CREATE | REPLACE) == CREATE | REPLACE
    assert (added["header"]["type"], removed["header"]["type"]) == (20, 21)


def test_a_remote_is_an_entry_for_what_is_not_known_to_be_elsewhere() -> None:
    """As ``bridge fdb append 00:00:00:00:00:00 dev vx7 dst 192.0.2.9`` says it."""
    step = Step(kind=StepKind.ADD_REMOTE, link="vx7", address="192.0.2.9")
    found = ndmsg(pack_step(step, 1, INDEXES))
    found.decode()

    assert (found["family"], found["ifindex"], found["flags"]) == (7, 9, 2)
    assert found["state"] == 0xC0
    assert pack_step(step, 1, INDEXES).endswith(bytes([8, 0, 1, 0, 192, 0, 2, 9]))


def test_deleting_names_the_number_alone() -> None:
    """Nothing that could be another link by now."""
    found = packed(kind=StepKind.DELETE, link="br-a", index=8)

    assert (found["header"]["type"], found["index"], found["attrs"]) == (17, 8, [])


def test_needs_are_the_links_that_have_no_number_yet() -> None:
    """Of the link itself, of its bridge, and of what carries it."""
    assert needs(Step(kind=StepKind.ATTACH, link="a", bridge="b")) == ("a", "b")
    assert needs(Step(kind=StepKind.ATTACH, link="a", index=1, bridge="b")) == ("b",)
    assert needs(Step(kind=StepKind.CREATE_VLAN, link="a", carrier="c")) == ("c",)
    assert needs(Step(kind=StepKind.CREATE_BRIDGE, link="a")) == ()
    assert needs(Step(kind=StepKind.DELETE, link="a", index=4)) == ()


@pytest.mark.parametrize("kind", ["bridge", "vlan", "vxlan"])
def test_a_probe_can_make_nothing(kind: str) -> None:
    """It lacks what the kind needs, or has an address that no link may have."""
    found = read(pack_probe(kind, 1))

    assert found.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA") is None
    assert found.get_attr("IFLA_ADDRESS") == ("01:00:5e:00:00:01" if kind == "bridge" else None)
    assert missing_feature(kind, errno.EOPNOTSUPP)
    assert missing_feature(kind, errno.EINVAL) == ""


def test_a_look_up_has_the_name_and_no_statistics() -> None:
    """Which are the largest part of an answer."""
    found = read(pack_lookup("br-a", 1))

    assert found.get_attr("IFLA_IFNAME") == "br-a"
    assert found.get_attr("IFLA_EXT_MASK") == 8


@pytest.mark.parametrize("kind", list(StepKind))
def test_every_step_has_a_message_and_words(kind: StepKind) -> None:
    """None was forgotten."""
    is_remote = kind in (StepKind.ADD_REMOTE, StepKind.REMOVE_REMOTE)
    step = Step(
        kind=kind,
        link="br-a",
        bridge="br-a",
        carrier="eth2",
        local="192.0.2.1",
        address="192.0.2.2" if is_remote else "192.0.2.2/24",
        mtu=1500,
    )

    assert len(pack_step(step, 1, INDEXES)) % 4 == 0
    assert "br-a" in describe_step(step)
