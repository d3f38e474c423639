"""The settings of the network level refuse what the kernel would not take."""

from __future__ import annotations

import pytest

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire, to_wire
from services.network.model import BridgeSettings, Link, NetworkSettings


@pytest.mark.parametrize(
    ("bridge", "problem"),
    [
        ({"name": ""}, "name is ''"),
        ({"name": "n" * 16}, "name is"),
        ({"name": "../eth0"}, "name is"),
        ({"name": "br 0"}, "name is"),
        ({"address": "10.0.0.1"}, "prefix length"),
        ({"address": "10.0.0.300/24"}, r"10\.0\.0\.300"),
        ({"address": "10.0.0.1/33"}, "10"),
        ({"enabled": 1}, "type bool"),
        ({"colour": "red"}, "unknown field"),
    ],
)
def test_bridge_settings_out_of_range_are_refused(bridge: dict[str, object], problem: str) -> None:
    """Each bad field is refused by a message that names it."""
    with pytest.raises(RemoteProtocolError, match=problem):
        from_wire(NetworkSettings, {"node_id": "n1", "bridge": bridge})


@pytest.mark.parametrize("node_id", ["", "n" * 201])
def test_a_node_id_that_fits_no_alias_is_refused(node_id: str) -> None:
    """The node id must leave room in the kernel's alias and not be empty."""
    with pytest.raises(RemoteProtocolError, match="node_id"):
        from_wire(NetworkSettings, {"node_id": node_id})


def test_limits_are_inclusive() -> None:
    """A name of 15 bytes and a node id of 200 are taken."""
    settings = from_wire(NetworkSettings, {"node_id": "n" * 200, "bridge": {"name": "b" * 15}})

    assert len(settings.alias.encode()) < 256


def test_the_defaults_are_a_bridge_without_address() -> None:
    """Only the node id has to be given."""
    settings = from_wire(NetworkSettings, {"node_id": "n1"})

    assert settings.bridge == BridgeSettings(enabled=True, name="novacron0", address=None)


def test_the_hardware_address_is_stable_local_and_differs_by_node_and_name() -> None:
    """Two nodes, or two bridges of a node, never share a hardware address."""
    one = NetworkSettings(node_id="n1")
    two = NetworkSettings(node_id="n2")
    other = NetworkSettings(node_id="n1", bridge=BridgeSettings(name="other0"))

    assert one.mac == NetworkSettings(node_id="n1").mac
    assert len({one.mac, two.mac, other.mac}) == 3
    assert one.mac.startswith("02:")
    assert len(one.mac) == 17


def test_a_link_survives_the_wire() -> None:
    """What was written is read."""
    link = Link(name="eth0", index=2, is_up=True, addresses=("10.0.0.1/24",))

    assert from_wire(Link, to_wire(link)) == link
