"""DHCP, DNS, address translation and forwarding for networks, with real machines and dnsmasq."""

from __future__ import annotations

import asyncio
import json
import pwd
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.messages.health import HealthState
from services.network.serving import configs
from services.network.serving.errors import DnsmasqConfigError
from services.network.serving.model import Dns, Mode, Range, Reservation
from services.network.serving.place import account, pid_file
from services.network.serving.switches import Switches
from supervisor.child.service import Request
from tests.fixtures.fix_netns import ip
from tests.fixtures.fix_node import ROOT
from tests.system.segments_running import nft
from tests.system.serving_running import (
    ANSWER_S,
    MAC,
    SILENCE_S,
    WORLD,
    Machine,
    ask,
    connects,
    dhcp,
    dhcp6,
    host,
    in_host,
    machines,
    network,
    passable,
    serve_tcp,
    taken_from,
    use,
)

pytestmark = pytest.mark.netns
TABLE = "table inet novacron-networks"


def switch(place: str) -> str:
    """A value below /proc/sys/net of the calling thread's namespace."""
    return Path("/proc/sys/net", place).read_text().strip()


def turn_to(place: str, value: str) -> None:
    """Do what an operator might."""
    Path("/proc/sys/net", place).write_text(value)


def rights(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def test_a_machine_gets_an_address_a_gateway_and_names() -> None:
    """From the range or its own; its name is known, and `leases` tells of it."""

    async def scenario() -> None:
        with machines() as (guest, _world):
            async with host() as node:
                await node.serve(network())
                offer = await dhcp(guest, hostname="guest")
                use(guest, offer)

                assert 100 <= int(offer.address.rpartition(".")[2]) <= 199
                assert offer.options[3] == offer.options[6] == socket.inet_aton("10.20.0.1")
                assert offer.options[15].rstrip(b"\0") == b"lan.example"
                assert int.from_bytes(offer.options[26], "big") == 1500
                assert ask(guest, "10.20.0.1", "guest.lan.example") == offer.address
                assert ask(guest, "10.20.0.1", "web.lan.example") == "10.20.0.11"
                assert ask(guest, "10.20.0.1", "nobody.lan.example") == ""
                body = {"network": "lan"}
                told = await node.part.calls()["networks.leases"](Request("x", "", body, 5.0))
                (lease,) = told["leases"]  # type: ignore[index,call-overload]  # a plain record
                assert lease["address"] == offer.address
                assert (lease["mac"], lease["hostname"]) == (MAC, "guest")

                own = Reservation(mac=MAC, address="10.20.0.42", hostname="own")
                await node.serve(network(reservations=(own,)))
                assert (await dhcp(guest)).address == "10.20.0.42"
                await node.part.look()
                assert [sample.value for sample in node.context.samples][-1] == 1

    in_host(scenario)


def test_packets_pass_as_the_mode_says() -> None:
    """NAT: out alone, under the host's address. Routed: both ways. Isolated: none."""

    async def scenario() -> None:
        with machines() as (guest, world):
            guest.ip("addr", "add", "10.20.0.50/24", "dev", "eth0")
            guest.ip("route", "add", "default", "via", "10.20.0.1")
            async with host() as node:
                in_world, in_guest = serve_tcp(world), serve_tcp(guest)
                assert not connects(guest, WORLD, wait_s=SILENCE_S)

                await node.serve(network(Mode.NAT))
                assert connects(guest, WORLD)
                assert taken_from(in_world) == "192.0.2.1"
                world.ip("route", "add", "10.20.0.0/24", "via", "192.0.2.1")
                assert not connects(world, "10.20.0.50", wait_s=SILENCE_S)

                await node.serve(network(Mode.ROUTED))
                assert connects(guest, WORLD)
                assert taken_from(in_world) == "10.20.0.50"
                assert connects(world, "10.20.0.50")
                assert taken_from(in_guest) == WORLD

                await node.serve(network(Mode.ISOLATED))
                assert not connects(guest, WORLD, wait_s=SILENCE_S)
                assert not connects(world, "10.20.0.50", wait_s=SILENCE_S)
                in_world.close()
                in_guest.close()

    in_host(scenario)


def test_ip6_is_advertised_given_out_and_carried() -> None:
    """A default route by advertisement, an address by DHCPv6, and NAT out of the host."""

    async def scenario() -> None:
        with machines() as (guest, world):
            ip("addr", "add", "fd00:20::1/64", "dev", "br0", "nodad")
            ip("addr", "add", "2001:db8::1/64", "dev", "up0", "nodad")
            ip("route", "add", "default", "via", "2001:db8::254", "dev", "up0")
            world.ip("addr", "add", "2001:db8::254/64", "dev", "eth0", "nodad")
            async with host() as node:
                listening = serve_tcp(world, family=socket.AF_INET6)
                await node.serve(
                    network(
                        gateway="fd00:20::1/64",
                        ranges=(Range(first="fd00:20::100", last="fd00:20::1ff"),),
                        reservations=(Reservation(mac=MAC, address="fd00:20::42"),),
                    )
                )
                assert await dhcp6(guest) == "fd00:20::42"
                guest.ip("addr", "add", "fd00:20::42/64", "dev", "eth0", "nodad")
                async with asyncio.timeout(ANSWER_S):
                    while "default via fe80" not in guest.ip("-6", "route"):  # noqa: ASYNC110 - the kernel
                        await asyncio.sleep(0.05)
                assert connects(guest, "2001:db8::254")
                assert taken_from(listening) == "2001:db8::1"
                listening.close()

    in_host(scenario)


def test_established_connections_live_through_a_change_of_the_rules() -> None:
    """The table is replaced, and connection tracking is no part of it."""

    async def scenario() -> None:
        with machines() as (guest, world):
            guest.ip("addr", "add", "10.20.0.50/24", "dev", "eth0")
            guest.ip("route", "add", "default", "via", "10.20.0.1")
            async with host() as node:
                await node.serve(network())
                listening = serve_tcp(world)
                client = guest.socket(socket.SOCK_STREAM)
                with client, listening:
                    client.settimeout(20.0)
                    client.connect((WORLD, 80))
                    server, _ = listening.accept()
                    with server:
                        server.settimeout(20.0)
                        await node.serve(network(dns=Dns(domain="other.example")))
                        client.sendall(b"still")
                        assert server.recv(16) == b"still"
                        server.sendall(b"here")
                        assert client.recv(16) == b"here"

    in_host(scenario)


def test_the_host_is_a_router_for_its_networks_alone() -> None:
    """Forwarding is on where it is needed, closed to others by rules, and put back."""

    async def scenario() -> None:
        with machines() as (_guest, world):
            ip("link", "add", "other0", "type", "bridge")
            other = Machine("tap9", mac="52:54:00:00:00:09")
            ip("addr", "add", "203.0.113.1/24", "dev", "tap9")
            other.ip("addr", "add", "203.0.113.2/24", "dev", "eth0")
            other.ip("route", "add", "default", "via", "203.0.113.1")
            world.ip("route", "add", "203.0.113.0/24", "via", "192.0.2.1")
            listening = serve_tcp(other)
            nft("add", "table", "inet", "foreign")
            async with host() as node:
                six = network(Mode.ROUTED, gateway="fd00:20::1/64", ranges=(), reservations=())
                ip("addr", "add", "fd00:20::1/64", "dev", "br0", "nodad")
                both = type(six)(name="lan", link="br0", subnets=(*network().subnets, *six.subnets))
                await node.serve(both)
                assert switch("ipv4/conf/br0/forwarding") == "1"
                assert switch("ipv4/conf/up0/forwarding") == "1"
                assert switch("ipv4/conf/other0/forwarding") == "0"
                assert switch("ipv4/ip_forward") == "0"
                assert switch("ipv6/conf/all/forwarding") == "1"
                assert switch("ipv6/conf/br0/forwarding") == "1"
                for link in ("up0", "other0", "default"):
                    assert switch(f"ipv6/conf/{link}/forwarding") == "0"
                    assert switch(f"ipv6/conf/{link}/accept_ra") == "1"
                # Its answers could not come back: only what comes in by up0 is forwarded.
                before = _received(other)
                assert not connects(world, "203.0.113.2", wait_s=SILENCE_S)
                assert _received(other) == before

                await node.serve()
                for place in (
                    "ipv4/conf/br0/forwarding",
                    "ipv4/conf/up0/forwarding",
                    "ipv6/conf/all/forwarding",
                    "ipv6/conf/br0/forwarding",
                ):
                    assert switch(place) == "0", place
                assert nft("list", "tables").strip() == "table inet foreign"
                assert not (node.state_dir / "network" / "serving").exists()
                assert node.processes.processes == {}
            listening.close()
            other.close()

    in_host(scenario)


def test_a_change_of_all_links_that_was_cut_short_is_ended(tmp_path: Path) -> None:
    """What a dead process had set for a moment is put back by the next one."""

    async def scenario() -> None:
        with machines():
            for place, value in (("accept_ra", "2"), ("forwarding", "1")):
                turn_to(f"ipv6/conf/up0/{place}", value)
            passing = {"ipv6/conf/up0/forwarding": "0", "ipv6/conf/up0/accept_ra": "1"}
            boot_id = switch("../kernel/random/boot_id")
            file = tmp_path / "forwarding.json"
            file.write_text(json.dumps({"boot_id": boot_id, "previous": {}, "passing": passing}))

            switches = Switches(file)
            switches.load()

            assert switch("ipv6/conf/up0/forwarding") == "0"
            assert switch("ipv6/conf/up0/accept_ra") == "1"
            assert switches.opened.passing == json.loads(file.read_text()).get("passing", {}) == {}

    in_host(scenario)


def _received(machine: Machine) -> int:
    """How many packets of IPv4 have come."""
    with machine.inside():
        head, values = Path("/proc/thread-self/net/snmp").read_text().splitlines()[:2]
    return int(dict(zip(head.split(), values.split(), strict=True))["InReceives"])


def test_a_configuration_that_dnsmasq_refuses_is_never_used() -> None:
    """The error names the network and the line; a disk that takes no file leaves the old one."""

    async def scenario() -> None:
        with machines() as (guest, _world):
            async with host() as node:
                with pytest.raises(DnsmasqConfigError, match=r"network lan: .*line 1 of its file"):
                    await configs.test({"lan": "nonsense=1\n"})
                await node.serve(network())
                use(guest, await dhcp(guest))
                file = node.state_dir / "network/serving/lan/dnsmasq.conf"
                before = file.read_text()
                file.with_name("dnsmasq.conf.new").mkdir()

                await node.part.serve((network(dns=Dns(domain="other.example")),))
                assert node.part.health.state is HealthState.DEGRADED
                assert "can't write" in node.part.health.reason
                assert file.read_text() == before
                assert ask(guest, "10.20.0.1", "web.lan.example") == "10.20.0.11"

                file.with_name("dnsmasq.conf.new").rmdir()
                await node.serve(network(dns=Dns(domain="other.example")))
                assert ask(guest, "10.20.0.1", "web.other.example") == "10.20.0.11"

    in_host(scenario)


def test_what_is_as_it_should_be_is_left_alone() -> None:
    """A second start of the service starts no dnsmasq; a dead one, and a new link, do."""

    async def scenario() -> None:
        with machines() as (_guest, _world):
            async with host() as node:
                await node.serve(network())
                await node.serve(network())
                await node.part.look()
                assert node.processes.starts == ["lan"]

                await node.processes.stop("lan")
                await node.part.look()
                assert node.processes.starts == ["lan", "lan"]

                ip("link", "del", "br0")
                ip("link", "add", "br0", "type", "bridge")
                ip("addr", "add", "10.20.0.1/24", "dev", "br0")
                ip("link", "set", "br0", "up")
                await node.see_links()
                await node.part.look()
                assert node.processes.starts == ["lan"] * 3

    in_host(scenario)


def test_a_change_of_the_table_by_others_is_noticed_and_not_undone() -> None:
    """Health says so until the networks are applied again; so for a switch that was turned off."""

    async def scenario() -> None:
        with machines() as (_guest, _world):
            async with host() as node:
                await node.serve(network())
                nft("delete", "table", "inet", "novacron-networks")
                await node.part.look()
                await node.part.look()
                assert "changed by somebody else" in node.part.health.reason
                assert TABLE not in nft("list", "tables")
                await node.serve(network())
                assert TABLE in nft("list", "tables")

                turn_to("ipv4/conf/br0/forwarding", "0")
                await node.part.look()
                assert "ipv4/conf/br0/forwarding was turned off" in node.part.health.reason
                await node.serve(network())

    in_host(scenario)


def test_a_smaller_mtu_is_told_and_clamped() -> None:
    """Machines learn it by DHCP, and the world's segments are no larger than fit."""

    async def scenario() -> None:
        with machines(mtu=1280) as (guest, world):
            async with host() as node:
                await node.serve(network())
                offer = await dhcp(guest)
                use(guest, offer)
                assert int.from_bytes(offer.options[26], "big") == 1280
                listening = serve_tcp(world)
                client = guest.socket(socket.SOCK_STREAM)
                with client, listening:
                    client.settimeout(20.0)
                    client.connect((WORLD, 80))
                    server, _ = listening.accept()
                    with server:
                        size = server.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
                assert size <= 1280 - 40

    in_host(scenario)


def test_a_dnsmasq_that_was_left_behind_is_ended_before_another() -> None:
    """Its number is noted; a process that has the number by chance is none of ours."""

    async def scenario() -> None:
        with machines():
            async with host() as node:
                await node.serve(network())
                left = node.processes.processes.pop("lan")
                await node.part.look()
                assert left.wait(ANSWER_S) == -signal.SIGKILL
                assert node.processes.starts == ["lan", "lan"]

                stranger = await asyncio.create_subprocess_exec("sleep", "60")
                pid_file(node.state_dir, "lan").write_text(str(stranger.pid))
                await node.serve()
                assert stranger.returncode is None
                stranger.kill()
                await stranger.wait()

    in_host(scenario)


def test_dnsmasq_has_no_more_rights_than_it_takes() -> None:
    """Its own account, three capabilities, and nothing that it could gain."""

    async def scenario() -> None:
        with machines() as (_guest, _world):
            async with host() as node:
                await node.serve(network())
                pid = node.processes.processes["lan"].pid
                fields = rights(pid)
                assert fields["Uid"].split() == [str(account().uid)] * 4
                assert {fields[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {
                    f"{1 << 10 | 1 << 12 | 1 << 13:016x}"
                }
                assert fields["NoNewPrivs"] == "1"

    in_host(scenario)


# Serves the network lan as the node would, in place of this process.
_AS_A_NODE = """
import os, sys
from pathlib import Path
from services.network.serving import dnsmasq
from services.network.serving.command import prepare
from services.network.serving.configs import Configs
from services.network.serving.switches import Switches
from tests.system.serving_running import network
state = Path(sys.argv[1])
Configs(state).publish("lan", dnsmasq.render(network()))
switches = Switches(state / "network/serving/forwarding.json")
switches.load()
switches.note(["ipv4/conf/br0/forwarding", "ipv6/conf/all/forwarding"])
switches.turn_on(["ipv4/conf/br0/forwarding", "ipv6/conf/all/forwarding"])
command = prepare({"state_dir": str(state), "network": "lan"})
os.execve(command.argv[0], command.argv, {**command.environment, "PATH": "/usr/bin"})
"""


def test_a_node_without_root_serves_with_the_capabilities_of_its_unit() -> None:
    """Those of etc/systemd/novacron-networks.conf beside the unit's own suffice."""
    drop_in = Path(ROOT, "etc/systemd/novacron-networks.conf").read_text()
    for name in ("NET_BIND_SERVICE", "NET_RAW"):
        assert f"CAP_{name}" in drop_in.partition("AmbientCapabilities=")[2].splitlines()[0]
    rights = "-all,+net_admin,+net_bind_service,+net_raw"
    user = pwd.getpwnam("nobody")

    async def scenario() -> None:
        with machines() as (guest, _world), passable(user.pw_uid) as state:
            log = (state / "log").open("wb")
            process = subprocess.Popen(  # noqa: ASYNC220 - in this thread's namespace
                [
                    *("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}"),
                    *("--clear-groups", f"--inh-caps={rights}", f"--ambient-caps={rights}"),
                    *("--no-new-privs", sys.executable, "-c", _AS_A_NODE, str(state)),
                ],
                cwd=ROOT,
                stderr=log,
            )
            try:
                try:
                    use(guest, await dhcp(guest))
                except TimeoutError:
                    raise AssertionError((state / "log").read_text()) from None
                assert switch("ipv4/conf/br0/forwarding") == "1"
                assert switch("ipv6/conf/all/forwarding") == "1"
            finally:
                process.kill()
                process.wait()
                log.close()

    in_host(scenario)
