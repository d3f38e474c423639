"""The network service against the kernel, in a network namespace of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from protocol.messages.health import HealthState
from protocol.records import Plain, from_wire
from services.network.model import BridgeState, NetworkSettings, NetworkStatus
from services.network.netlink import Netlink
from services.network.plan import REPAIRS_MAX
from tests.fixtures.fix_netns import ip
from tests.system.network_running import Running, in_netns, running_service, wait_until

pytestmark = pytest.mark.netns

SETTINGS: dict[str, Plain] = {
    "node_id": "n1",
    "bridge": {"enabled": True, "name": "nc0", "address": "10.9.0.1/24"},
}
ROOT = Path(__file__).parents[2]


def running(settings: dict[str, Plain] = SETTINGS) -> AbstractAsyncContextManager[Running]:
    """A service with the settings of most tests."""
    return running_service(settings)


async def status_of(node: Running) -> NetworkStatus:
    """The service's status."""
    return from_wire(NetworkStatus, await node.call("network.status"))


def shown(name: str = "nc0") -> dict[str, Any]:
    """What the ip program says about a link; empty when there is none."""
    found = [link for link in json.loads(ip("-j", "-d", "addr")) if link["ifname"] == name]
    return dict(found[0]) if found else {}


def addresses(name: str = "nc0") -> list[str]:
    """The link's IPv4 addresses as the ip program says."""
    return [
        f"{info['local']}/{info['prefixlen']}"
        for info in shown(name).get("addr_info", [])
        if info["family"] == "inet"
    ]


def test_the_bridge_is_made_as_configured() -> None:
    """A host without the bridge has it after init: marked, up, with its addresses."""

    async def scenario() -> None:
        async with running() as node:
            link = shown()
            assert link["linkinfo"]["info_kind"] == "bridge"
            assert link["ifalias"] == "novacron:n1"
            assert link["address"] == from_wire(NetworkSettings, SETTINGS).mac
            assert "UP" in link["flags"]
            assert addresses() == ["10.9.0.1/24"]
            assert node.context.health.state is HealthState.HEALTHY
            assert node.events() == ["network:bridge-created"]
            names = [link["name"] for link in (await node.call("network.links"))["links"]]
            assert names == ["lo", "nc0"]

    in_netns(scenario)


@pytest.mark.parametrize(
    "damage",
    [
        ("link", "del", "nc0"),
        ("link", "set", "nc0", "down"),
        ("addr", "del", "10.9.0.1/24", "dev", "nc0"),
        ("link", "set", "nc0", "name", "renamed0"),
    ],
)
def test_damage_by_hand_is_repaired(damage: tuple[str, ...]) -> None:
    """Whatever is removed from the bridge from outside is back soon, and an event says so."""

    async def scenario() -> None:
        async with running() as node:
            if "name" in damage:
                ip("link", "set", "nc0", "down")
                ip("addr", "flush", "dev", "nc0")
            ip(*damage)

            await wait_until(
                lambda: bool(
                    addresses() == ["10.9.0.1/24"]
                    and "UP" in shown()["flags"]
                    and shown()["ifalias"] == "novacron:n1"
                ),
                "repair",
            )
            await wait_until(lambda: "network:bridge-repaired" in node.events(), "event")
            assert (await status_of(node)).bridge.repairs >= 1
            assert node.context.health.state is HealthState.HEALTHY

    in_netns(scenario)


def test_a_foreign_bridge_is_never_touched_and_its_removal_noticed() -> None:
    """Somebody else's bridge of that name degrades the component; once gone, ours is made."""

    async def scenario() -> None:
        ip("link", "add", "nc0", "type", "bridge")
        before = shown()
        async with running() as node:
            assert shown() == before
            assert node.context.health.state is HealthState.DEGRADED
            assert "no mark of this node" in node.context.health.reason
            assert (await status_of(node)).bridge.state is BridgeState.CONFLICT

            ip("link", "del", "nc0")

            await wait_until(lambda: node.context.health.state is HealthState.HEALTHY, "recovery")
            assert shown()["ifalias"] == "novacron:n1"

    in_netns(scenario)


def test_an_address_of_another_link_is_not_taken_over() -> None:
    """A network that the host already uses elsewhere is refused before anything is created."""

    async def scenario() -> None:
        ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
        ip("addr", "add", "10.9.0.200/16", "dev", "up0")
        async with running() as node:
            assert shown() == {}
            assert "overlaps 10.9.0.200/16 on up0" in node.context.health.reason

    in_netns(scenario)


def test_the_bridge_outlives_the_service_and_is_taken_over_again() -> None:
    """Stopping leaves the bridge, its ports and further addresses; the next start changes none."""

    async def scenario() -> None:
        async with running():
            ip("link", "add", "guest0", "type", "veth", "peer", "name", "guest1")
            ip("link", "set", "guest0", "master", "nc0")
            ip("addr", "add", "10.9.0.2/24", "dev", "nc0")
        before = shown()
        async with running() as node:
            assert shown()["ifindex"] == before["ifindex"]
            assert shown("guest0")["master"] == "nc0"
            assert addresses() == ["10.9.0.1/24", "10.9.0.2/24"]
            assert node.events() == []
            assert node.context.health.state is HealthState.HEALTHY

    in_netns(scenario)


def test_a_bridge_that_was_created_but_not_marked_is_recognised() -> None:
    """A node that died half-way finds its own bridge by the hardware address."""

    async def scenario() -> None:
        mac = from_wire(NetworkSettings, SETTINGS).mac
        ip("link", "add", "nc0", "address", mac, "type", "bridge")
        async with running() as node:
            assert shown()["ifalias"] == "novacron:n1"
            assert node.context.health.state is HealthState.HEALTHY

    in_netns(scenario)


def test_a_fight_over_the_bridge_is_given_up() -> None:
    """After so many repairs the bridge is left alone and the component says why."""

    async def scenario() -> None:
        async with running() as node:
            for count in range(1, REPAIRS_MAX + 1):
                ip("link", "del", "nc0")
                await wait_until(
                    lambda count=count: node.events().count("network:bridge-repaired") == count,
                    f"repair {count}",
                )

            ip("link", "del", "nc0")

            await wait_until(lambda: node.context.health.state is HealthState.DEGRADED, "giving up")
            assert "left alone" in node.context.health.reason
            assert shown() == {}

    in_netns(scenario)


def test_lost_notifications_lead_to_a_full_reading() -> None:
    """More changes than the socket holds do not hide the last one."""

    async def scenario() -> None:
        async with running() as node:
            ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
            batch = "link set up0 up\nlink set up0 down\n" * 1500 + "link del nc0\n"
            # The loop stands still meanwhile, so that the socket's buffer overflows.
            ip("-batch", "-", stdin=batch)

            await wait_until(lambda: "network:bridge-repaired" in node.events(), "repair", 10.0)
            assert (await status_of(node)).resyncs >= 1

    in_netns(scenario)


def test_a_disabled_bridge_is_not_made() -> None:
    """Switched off, the host's links are only read."""

    async def scenario() -> None:
        async with running({"node_id": "n1", "bridge": {"enabled": False}}) as node:
            assert node.context.health.state is HealthState.HEALTHY
            assert (await status_of(node)).bridge.state is BridgeState.DISABLED
            assert (await status_of(node)).links == 1

    in_netns(scenario)


WITHOUT_CAPABILITY = """
import asyncio, json
from services.network.service import NetworkService
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext

async def main():
    context = MemoryServiceContext(path="core/network", settings={"node_id": "n1"})
    service = NetworkService()
    await service.init(context)
    links = await service.calls()["network.links"](Request("operator", "", None, 5.0))
    status = await service.calls()["network.status"](Request("operator", "", None, 5.0))
    health = context.health
    await service.terminate()
    print(json.dumps([health.state.value, health.reason, links, status]))

asyncio.run(main())
"""


def run_python(source: str, *prefix: str) -> str:
    """Run a program in a fresh interpreter and return the last line that it prints."""
    done = subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-c", source],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_without_the_capability_links_are_read_and_the_bridge_is_skipped() -> None:
    """Lacking CAP_NET_ADMIN the component is degraded, says why, and still reads links."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    prefix = ("unshare", "--net", "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")

    state, reason, links, status = json.loads(run_python(WITHOUT_CAPABILITY, *prefix))

    assert state == "degraded"
    assert "bridge skipped: the process lacks CAP_NET_ADMIN" in reason
    assert [link["name"] for link in links["links"]] == ["lo"]
    assert status["bridge"]["state"] == "skipped"


def test_the_service_loads_the_library_only_to_change_links() -> None:
    """Reading and following links takes none of pyroute2, changing them the route socket alone."""
    program = (
        "import sys, services.network.service; unused = 'pyroute2' not in sys.modules; "
        "import services.network.route_socket; lean = 'pyroute2.ndb' not in sys.modules; "
        "from pyroute2 import NDB; print(unused, lean, NDB.__name__)"
    )

    assert run_python(program) == "True True NDB"


def test_links_of_all_kinds_are_read_as_the_ip_program_reads_them() -> None:
    """Names, kinds, addresses, states and aliases agree, on more links than one read holds."""

    async def scenario() -> None:
        batch = "".join(f"link add v{n} type veth peer name w{n}\n" for n in range(100))
        batch += "link add br0 type bridge\nlink set v1 master br0\nlink set v1 up\n"
        batch += "link set br0 alias some-alias\nlink set br0 mtu 1400\nlink set br0 up\n"
        batch += "addr add 10.1.2.3/24 dev br0\naddr add fd00::1/64 dev br0\n"
        batch += "addr add 10.9.9.1 peer 10.9.9.2/32 dev v2\n"
        ip("-batch", "-", stdin=batch)

        found = {link.name: link for link in await Netlink().read_links()}

        expected = {item["ifname"]: item for item in json.loads(ip("-j", "-d", "addr"))}
        assert found.keys() == expected.keys()
        for name, item in expected.items():
            link = found[name]
            assert link.index == item["ifindex"]
            assert link.kind == item.get("linkinfo", {}).get("info_kind", "")
            assert link.is_up == ("UP" in item["flags"])
            assert link.operstate == item["operstate"].lower()
            assert (link.mac, link.mtu) == (item["address"], item["mtu"])
            assert link.alias == item.get("ifalias", "")
            assert link.bridge_index == (found["br0"].index if name == "v1" else None)
            assert set(link.addresses) == {
                f"{info['local']}/{info['prefixlen']}" for info in item["addr_info"]
            }

    in_netns(scenario)
