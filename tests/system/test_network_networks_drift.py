"""Networks that somebody else changes: mended or told, as the document wants it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from protocol.messages.health import HealthState
from services.network.plan import REPAIRS_MAX
from tests.fixtures.fix_netns import ip
from tests.system.network_running import in_netns, wait_until
from tests.system.networks_running import (
    GUESTS,
    Running,
    addresses,
    bridge,
    links,
    picture,
    remotes,
    running,
    veth,
)

pytestmark = pytest.mark.netns

REPORT = "drift: report\n" + GUESTS
SEGMENT = """
networks:
- name: tenants
  bridge: br-tenants
  vxlans: [{vni: 4020, local: 192.0.2.10, remotes: [192.0.2.11]}]
"""
DEADLINE_S = 20.0


async def wait_event(node: Running, name: str, count: int = 1) -> None:
    """Let the service notice."""
    await wait_until(lambda: node.events().count(name) >= count, name, DEADLINE_S)


@pytest.mark.parametrize(
    "damage",
    [
        ("link", "del", "br-guests"),
        ("link", "set", "br-guests", "down"),
        ("link", "set", "br-guests", "mtu", "1300"),
        ("link", "set", "br-guests", "alias", ""),
        ("link", "set", "br-guests", "type", "bridge", "stp_state", "1"),
        ("addr", "del", "10.20.0.254/24", "dev", "br-guests"),
        ("link", "set", "up0", "nomaster"),
        ("link", "set", "up0", "down"),
    ],
)
def test_damage_by_hand_is_repaired(tmp_path: Path, damage: tuple[str, ...]) -> None:
    """Whatever was taken is back soon, and an event says so."""

    async def scenario() -> None:
        veth("up0")
        async with running(tmp_path) as node:
            await node.apply(GUESTS)
            before = {name: facts[:4] + facts[5:] for name, facts in picture().items()}

            ip(*damage)

            await wait_event(node, "networks:repaired")
            after = {name: facts[:4] + facts[5:] for name, facts in picture().items()}
            assert after == before
            found = links()["br-guests"]["linkinfo"]["info_data"]
            assert found["stp_state"] == 0
            assert node.context.health.state is HealthState.HEALTHY
            assert (await node.show())["status"]["repairs"] >= 1

    in_netns(scenario)


def test_a_remote_that_is_taken_from_a_segment_comes_back(tmp_path: Path) -> None:
    """The kernel tells of no remotes here, so the next look at the component finds it."""

    async def scenario() -> None:
        veth("under0")
        ip("addr", "add", "192.0.2.10/24", "dev", "under0")
        async with running(tmp_path) as node:
            await node.apply(SEGMENT)
            entry = ("00:00:00:00:00:00", "dev", "vx4020", "dst")
            bridge("fdb", "del", *entry, "192.0.2.11")
            bridge("fdb", "append", *entry, "192.0.2.66")

            health = await node.service.check()

            assert remotes("vx4020") == ["192.0.2.11"]
            assert health.state is HealthState.HEALTHY
            ip("link", "del", "vx4020")
            await wait_event(node, "networks:repaired", 2)
            assert remotes("vx4020") == ["192.0.2.11"]
            assert links()["vx4020"]["master"] == "br-tenants"

    in_netns(scenario)


def test_drift_is_told_and_left_where_the_document_says_so(tmp_path: Path) -> None:
    """The component is degraded and says why; an apply without a document mends it."""

    async def scenario() -> None:
        veth("up0")
        async with running(tmp_path) as node:
            await node.apply(REPORT)

            ip("link", "del", "br-guests")

            await wait_event(node, "networks:drifted")
            await node.service.check()
            assert "br-guests" not in links()
            assert node.context.health.state is HealthState.DEGRADED
            assert "missing: bridge br-guests" in node.context.health.reason
            assert "'novacronctl net apply' puts it back" in node.context.health.reason
            assert (await node.show())["status"]["state"] == "drifted"
            assert len((await node.plan(None))["steps"]) == 4

            await node.apply(None)

            assert addresses("br-guests") == ["10.20.0.254/24"]
            assert node.context.health.state is HealthState.HEALTHY
            assert node.events().count("networks:drifted") == 1

    in_netns(scenario)


def test_an_interface_that_vanishes_is_told_and_taken_back_when_it_returns(tmp_path: Path) -> None:
    """All else is kept meanwhile."""

    async def scenario() -> None:
        veth("up0")
        async with running(tmp_path) as node:
            await node.apply(GUESTS)

            ip("link", "del", "up0")
            await wait_event(node, "networks:drifted")
            assert "up0 is no link of the host" in node.context.health.reason
            ip("addr", "del", "10.20.0.254/24", "dev", "br-guests")
            await wait_event(node, "networks:repaired")
            assert node.context.health.state is HealthState.DEGRADED
            veth("up0")

            await wait_until(
                lambda: node.context.health.state is HealthState.HEALTHY, "recovery", DEADLINE_S
            )
            assert links()["up0"]["master"] == "br-guests"
            assert addresses("br-guests") == ["10.20.0.254/24"]

    in_netns(scenario)


def test_a_foreign_link_that_takes_the_name_is_left_alone(tmp_path: Path) -> None:
    """The conflict is told until the name is free again."""

    async def scenario() -> None:
        veth("up0")
        async with running(tmp_path) as node:
            await node.apply(REPORT.replace("report", "repair"))
            ip("-batch", "-", stdin="link del br-guests\nlink add br-guests type bridge\n")
            await wait_event(node, "networks:drifted")
            assert "ifalias" not in links()["br-guests"]
            assert "choose another name" in node.context.health.reason

            ip("link", "del", "br-guests")

            await wait_until(
                lambda: node.context.health.state is HealthState.HEALTHY, "recovery", DEADLINE_S
            )
            assert links()["br-guests"]["ifalias"] == "novacron:n1/guests"

    in_netns(scenario)


def test_a_fight_is_given_up(tmp_path: Path) -> None:
    """After so many repairs everything is left alone, and the component says why."""

    async def scenario() -> None:
        veth("up0")
        async with running(tmp_path) as node:
            await node.apply(GUESTS)
            for count in range(1, REPAIRS_MAX + 1):
                ip("link", "del", "br-guests")
                await wait_event(node, "networks:repaired", count)

            ip("link", "del", "br-guests")

            await wait_event(node, "networks:drifted")
            assert "left alone" in node.context.health.reason
            assert "br-guests" not in links()

    in_netns(scenario)


@pytest.mark.parametrize("text", [GUESTS, REPORT])
def test_after_a_boot_of_the_host_everything_is_made_anew(tmp_path: Path, text: str) -> None:
    """Links do not survive it, so this is no drift; within one boot it may be."""

    async def scenario() -> None:
        veth("up0")
        async with running(tmp_path) as node:
            await node.apply(text)
        ip("link", "del", "br-guests")
        file = tmp_path / "network" / "networks.json"
        kept = json.loads(file.read_text())
        file.write_text(json.dumps(kept | {"boot": "another"}))

        async with running(tmp_path) as node:
            assert addresses("br-guests") == ["10.20.0.254/24"]
            assert links()["up0"]["master"] == "br-guests"
            assert node.events() == ["networks:restored"]
            assert node.context.health.state is HealthState.HEALTHY
            assert json.loads(file.read_text())["boot"] == kept["boot"]

    in_netns(scenario)


async def boot_with_a_taken_vni(state: Path) -> None:
    """A host after a boot, where somebody else has the VNI of one of the two networks by now."""
    veth("under0", "up0")
    ip("addr", "add", "192.0.2.10/24", "dev", "under0")
    async with running(state) as node:
        await node.apply(SEGMENT + GUESTS.replace("networks:\n", ""))
    for name in ("vx4020", "br-tenants", "br-guests"):
        ip("link", "del", name)
    theirs = ("type", "vxlan", "id", "4020", "local", "192.0.2.10", "dstport", "4789")
    ip("link", "add", "theirs0", *theirs)
    file = state / "network" / "networks.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"boot": "another"}))


def test_a_network_that_can_not_be_made_keeps_no_other_from_being_made(tmp_path: Path) -> None:
    """What the kernel says of it is told; it is made when what was in the way is gone."""

    async def scenario() -> None:
        await boot_with_a_taken_vni(tmp_path)
        async with running(tmp_path) as node:
            assert addresses("br-guests") == ["10.20.0.254/24"]
            assert links()["up0"]["master"] == "br-guests"
            assert "VXLAN vx4020" in node.context.health.reason
            assert "EEXIST" in node.context.health.reason
            ip("link", "del", "theirs0")
            await wait_until(lambda: "vx4020" in links(), "the segment", DEADLINE_S)
            await wait_until(
                lambda: node.context.health.state is HealthState.HEALTHY, "recovery", DEADLINE_S
            )

    in_netns(scenario)


def test_a_network_that_fails_on_and_on_leaves_the_others_their_repairs(tmp_path: Path) -> None:
    """Its attempts are counted by themselves, and end for a while."""

    async def scenario() -> None:
        await boot_with_a_taken_vni(tmp_path)
        async with running(tmp_path) as node:
            for _ in range(2 * REPAIRS_MAX):
                await node.service.check()
            ip("link", "del", "br-guests")

            await wait_until(lambda: "br-guests" in links(), "repair", DEADLINE_S)
            await wait_until(lambda: bool(addresses("br-guests")), "address", DEADLINE_S)
            assert "EEXIST" in node.context.health.reason

    in_netns(scenario)


def test_networks_outlive_the_service_and_are_taken_over_again(tmp_path: Path) -> None:
    """Stopping leaves everything; the next start changes nothing."""

    async def scenario() -> None:
        veth("up0")
        async with running(tmp_path) as node:
            await node.apply(GUESTS)
        before = picture()
        async with running(tmp_path) as node:
            assert picture() == before
            assert node.events() == []
            assert (await node.show())["status"]["state"] == "in_force"

    in_netns(scenario)
