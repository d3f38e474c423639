"""The table for the networks: which sets and rules, and that a change is one transaction."""

from __future__ import annotations

from typing import Any

from services.network.segments.render import Command
from services.network.serving.model import Mode, ServedNetwork, Subnet
from services.network.serving.rules import Doors, render


def network(link: str, *gateways: tuple[str, Mode]) -> ServedNetwork:
    """A network with these subnets."""
    subnets = tuple(Subnet(gateway=gateway, mode=mode) for gateway, mode in gateways)
    return ServedNetwork(name=link, link=link, subnets=subnets)


def sets(commands: list[Command]) -> dict[str, Any]:
    """Elements by set."""
    found = [command.body["add"]["set"] for command in commands if "set" in command.body["add"]]
    return {item["name"]: item.get("elem", []) for item in found}


def rules(commands: list[Command], chain: str) -> list[list[Any]]:
    """Expressions of a chain's rules."""
    found = [item.body["add"].get("rule") for item in commands if "add" in item.body]
    return [rule["expr"] for rule in found if rule is not None and rule["chain"] == chain]


def test_without_networks_and_table_nothing_is_done() -> None:
    """A node without networks needs no nft."""
    assert render([], Doors(), is_present=False) == []


def test_the_last_network_takes_the_table_with_it() -> None:
    """It is added first, since a table that is not there can't be deleted."""
    found = render([], Doors(), is_present=True)
    assert [next(iter(command.body)) for command in found] == ["add", "delete"]


def test_the_table_is_replaced_as_a_whole() -> None:
    """Whatever was in it is gone in the same transaction in which the new rules come."""
    found = render([network("br0", ("10.0.0.1/24", Mode.NAT))], Doors(), is_present=True)
    assert [next(iter(command.body)) for command in found[:3]] == ["add", "delete", "add"]
    assert all("add" in command.body for command in found[2:])


def test_each_subnet_is_in_the_set_of_its_mode() -> None:
    """NAT and routed by link and prefix; an isolated one in none, so that it is dropped."""
    prefix = {"prefix": {"addr": "10.0.0.0", "len": 24}}
    commands = render(
        [
            network("br0", ("10.0.0.1/24", Mode.NAT), ("fd00::1/64", Mode.ROUTED)),
            network("br1", ("10.1.0.1/24", Mode.ISOLATED)),
        ],
        Doors(),
        is_present=False,
    )
    found = sets(_adds(commands))

    assert found["links"] == ["br0", "br1"]
    assert found["nat4"] == [{"concat": ["br0", prefix]}]
    assert found["sources4"] == [prefix]
    assert found["routed6"] == [{"concat": ["br0", {"prefix": {"addr": "fd00::", "len": 64}}]}]
    assert found["routed4"] == found["nat6"] == found["sources6"] == []


def test_what_was_opened_for_networks_is_closed_to_others() -> None:
    """A drop for what comes in by a door of ours and goes to none of our links."""
    served = [network("br0", ("10.0.0.1/24", Mode.NAT))]
    closed = rules(
        _adds(render(served, Doors(ip4=("eth0",), ip6=True), is_present=False)), "forward"
    )
    assert closed[-2][-1] == closed[-1][-1] == {"drop": None}
    plain = rules(_adds(render(served, Doors(), is_present=False)), "forward")
    assert len(plain) == len(closed) - 2


def test_segments_are_clamped_where_an_mtu_differs() -> None:
    """Both ways, before anything is decided."""
    served = [network("br0", ("10.0.0.1/24", Mode.NAT))]
    found = rules(_adds(render(served, Doors(clamped=("br0",)), is_present=False)), "forward")
    assert all("mangle" in rule[-1] for rule in found[:2])


def _adds(commands: list[Command]) -> list[Command]:
    return [command for command in commands if "add" in command.body]
