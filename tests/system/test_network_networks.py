"""Networks against the kernel, in a network namespace of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.messages.health import HealthState
from services.network.networks.errors import (
    NetworksConflictError,
    NetworksNotWantedError,
    NetworksUnsupportedError,
)
from tests.fixtures.fix_netns import ip
from tests.system.network_running import in_netns
from tests.system.networks_running import (
    GUESTS,
    NOTHING,
    addresses,
    links,
    picture,
    remotes,
    running,
    veth,
)

pytestmark = pytest.mark.netns

WHOLE = """
networks:
- name: guests
  bridge: br-guests
  ports: [up0, up1]
  addresses: ["fd00:20::1/64", 10.20.0.254/24]
- name: tenants
  bridge: br-tenants
  vxlans: [{vni: 4020, local: 192.0.2.10, remotes: [192.0.2.11, 192.0.2.12]}]
"""


def test_everything_is_made_as_the_document_says(tmp_path: Path) -> None:
    """Bridges, ports, addresses, VXLAN with its remotes, marked and up; done again it is done."""

    async def scenario() -> None:
        veth("up0", "up1", "under0")
        ip("addr", "add", "192.0.2.10/24", "dev", "under0")
        ip("link", "set", "under0", "up")
        async with running(tmp_path) as node:
            planned = await node.plan(WHOLE)
            applied = await node.apply(WHOLE)
            found = links()
            shown = await node.show()

            assert applied["steps"] == len(planned["steps"])
            bridge = found["br-guests"]
            assert bridge["ifalias"] == "novacron:n1/guests"
            assert bridge["linkinfo"]["info_data"]["stp_state"] == 0
            assert "UP" in bridge["flags"]
            assert addresses("br-guests") == ["10.20.0.254/24"]
            assert found["up0"]["master"] == found["up1"]["master"] == "br-guests"
            assert "UP" in found["up0"]["flags"]
            vxlan = found["vx4020"]
            assert vxlan["master"] == "br-tenants"
            assert vxlan["mtu"] == found["br-tenants"]["mtu"] == 1450
            assert vxlan["linkinfo"]["info_data"]["id"] == 4020
            assert vxlan["linkinfo"]["info_data"]["port"] == 4789
            assert remotes("vx4020") == ["192.0.2.11", "192.0.2.12"]
            assert [item["name"] for item in shown["links"]] == [
                "br-guests",
                "br-tenants",
                "vx4020",
            ]
            assert shown["links"][0]["ports"] == ["up0", "up1"]
            assert node.events() == ["networks:applied"]

            before = picture()
            again = await node.apply(WHOLE)
            assert again.get("steps", 0) == 0
            assert picture() == before
            assert node.context.health.state is HealthState.HEALTHY

    in_netns(scenario)


def test_an_empty_document_takes_everything_away_again(tmp_path: Path) -> None:
    """Only what was made goes; ports of the host stay, without their bridge."""

    async def scenario() -> None:
        veth("up0", "up1", "under0")
        ip("addr", "add", "192.0.2.10/24", "dev", "under0")
        before = set(links())
        async with running(tmp_path) as node:
            await node.apply(WHOLE)

            await node.apply(NOTHING)

            assert set(links()) == before
            assert "master" not in links()["up0"]
            assert addresses("under0") == ["192.0.2.10/24"]

    in_netns(scenario)


def test_a_change_touches_only_what_differs(tmp_path: Path) -> None:
    """Another port, address and remote; links, other addresses and guests' ports stay."""

    async def scenario() -> None:
        veth("up0", "up1", "under0", "guest0")
        ip("addr", "add", "192.0.2.10/24", "dev", "under0")
        changed = (
            WHOLE.replace("[up0, up1]", "[up1]")
            .replace("fd00:20::1", "fd00:20::2")
            .replace("192.0.2.12]", "192.0.2.13]")
        )
        async with running(tmp_path) as node:
            await node.apply(WHOLE)
            ip("link", "set", "guest0", "master", "br-guests")
            ip("addr", "add", "10.99.0.1/24", "dev", "br-guests")
            before = links()

            applied = await node.apply(changed)

            found = links()
            assert applied["steps"] == 5
            assert {found[n]["ifindex"] for n in ("br-guests", "vx4020")} == {
                before[n]["ifindex"] for n in ("br-guests", "vx4020")
            }
            assert "master" not in found["up0"]
            assert found["guest0"]["master"] == "br-guests"
            assert addresses("br-guests") == ["10.20.0.254/24", "10.99.0.1/24"]
            assert remotes("vx4020") == ["192.0.2.11", "192.0.2.13"]

    in_netns(scenario)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        ([], "up0 is no link of the host"),
        (
            ["link add br-guests type bridge", "link add up0 type bridge"],
            "br-guests is a bridge link that carries no mark",
        ),
        (["link add up0 type bridge"], "up0 is a bridge, which can't be a port"),
        (
            [
                "link add other0 type bridge",
                "link add up0 type veth peer name up0p",
                "link set up0 master other0",
            ],
            "up0 is a port of other0, which is not this node's",
        ),
        (
            ["link add up0 type veth peer name up0p", "addr add 192.0.2.1/24 dev up0"],
            "up0 has the address 192.0.2.1/24",
        ),
        (
            [
                "link add up0 type veth peer name up0p",
                "link set up0 up",
                "route add 10.77.0.0/16 dev up0",
            ],
            "up0 has the route 10.77.0.0/16 over it",
        ),
        (
            ["link add up0 type veth peer name up0p", "addr add 10.20.0.9/16 dev up0p"],
            "10.20.0.254/24 overlaps 10.20.0.9/16 on up0p",
        ),
    ],
)
def test_what_stands_in_the_way_is_named_and_left_alone(
    tmp_path: Path, make: list[str], expected: str
) -> None:
    """Plan tells the conflict, apply refuses for it, and nothing has changed."""

    async def scenario() -> None:
        for line in make:
            ip(*line.split())
        before = picture()
        async with running(tmp_path) as node:
            planned = await node.plan(GUESTS)
            with pytest.raises(NetworksConflictError, match=expected):
                await node.apply(GUESTS)

            assert expected in " ".join(planned["conflicts"])
            assert picture() == before
            assert node.events() == ["networks:refused"]
            assert not list((tmp_path / "network").glob("networks.*"))
            assert node.context.health.state is HealthState.HEALTHY

    in_netns(scenario)


def test_a_bridge_with_guests_is_deleted_only_by_force(tmp_path: Path) -> None:
    """Without it the ports are named; with it they are detached, and stay."""

    async def scenario() -> None:
        veth("up0", "guest0")
        async with running(tmp_path) as node:
            await node.apply(GUESTS)
            ip("link", "set", "guest0", "master", "br-guests")
            with pytest.raises(NetworksConflictError, match="with guest0 attached"):
                await node.apply(NOTHING)
            assert "br-guests" in links()

            await node.apply(NOTHING, force=True)

            assert "br-guests" not in links()
            assert "master" not in links()["guest0"]

    in_netns(scenario)


def test_a_bridge_that_carries_somebody_elses_link_is_not_deleted_even_by_force(
    tmp_path: Path,
) -> None:
    """The kernel would delete it too, and nobody could bring it back."""

    async def scenario() -> None:
        veth("up0")
        async with running(tmp_path) as node:
            await node.apply(GUESTS)
            try:
                ip("link", "add", "mv0", "link", "br-guests", "type", "macvlan")
            except Exception:  # noqa: BLE001 - whatever ip says of a kernel without it
                pytest.skip("the kernel has no macvlan")
            with pytest.raises(NetworksConflictError, match="while it carries mv0"):
                await node.apply(NOTHING, force=True)
            assert "mv0" in links()

    in_netns(scenario)


def test_what_a_route_of_somebody_else_needs_is_not_taken_away(tmp_path: Path) -> None:
    """The kernel would drop the route with the address or link, and nobody could restore it."""

    async def scenario() -> None:
        veth("up0")
        async with running(tmp_path) as node:
            await node.apply(GUESTS)
            ip("route", "add", "default", "via", "10.20.0.1")
            ip("route", "add", "10.77.0.0/16", "dev", "br-guests")
            with pytest.raises(NetworksConflictError, match=r"route default via 10.20.0.1"):
                await node.apply(NOTHING)
            with pytest.raises(NetworksConflictError, match=r"can't lose 10.20.0.254/24"):
                await node.apply(GUESTS.replace("10.20.0.254/24", "10.20.0.253/24"))
            ip("route", "del", "default")
            ip("route", "del", "10.77.0.0/16")

            await node.apply(NOTHING)

            assert "br-guests" not in links()

    in_netns(scenario)


def test_a_kernel_without_vlans_is_told_before_anything_changes(tmp_path: Path) -> None:
    """The error names the feature and the link; a kernel that has VLANs makes it."""

    async def scenario() -> None:
        veth("up0")
        document = GUESTS + "  vlans: [{link: up0p, id: 20}]\n"
        before = picture()
        async with running(tmp_path) as node:
            fault = ""
            try:
                await node.apply(document)
            except NetworksUnsupportedError as exc:
                fault = exc.message

            if fault:
                assert fault.startswith("this kernel has no VLANs (8021q), which up0p.20 needs")
                assert picture() == before
            else:
                assert links()["up0p.20"]["master"] == "br-guests"

    in_netns(scenario)


def test_a_node_that_never_had_networks_is_healthy_and_says_so(tmp_path: Path) -> None:
    """Show answers; putting back what never was is an error with a name."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            shown = await node.show()
            with pytest.raises(NetworksNotWantedError):
                await node.apply(None)

            assert shown["status"]["state"] == "none"
            assert node.context.health.state is HealthState.HEALTHY

    in_netns(scenario)
