"""Served networks in a namespace: machines on the host's links, a DHCP client, and dnsmasq."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.network.model import Link
from services.network.netlink import Netlink
from services.network.serving.command import prepare
from services.network.serving.errors import DnsmasqFailedError
from services.network.serving.model import Dns, Mode, Range, Reservation, ServedNetwork, Subnet
from services.network.serving.part import ServingPart
from services.network.serving.place import PATH, pid_file
from supervisor.testing.context import MemoryServiceContext
from tests.fixtures.fix_guests import _call
from tests.fixtures.fix_netns import CLONE_NEWNET, ip, run_in_netns

MAC = "52:54:00:00:00:01"
WORLD = "192.0.2.254"
# A machine that is busy may take its time; what is expected ends the wait.
ANSWER_S = 20.0
SILENCE_S = 0.5
_MAGIC = b"\x63\x82\x53\x63"


class Machine:
    """A namespace of its own, joined to the host by a pair of links."""

    def __init__(self, link: str, *, mac: str = MAC, bridge: str = "") -> None:
        host = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        _call("unshare", CLONE_NEWNET)
        self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            ip("link", "set", "lo", "up")
            ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "address", mac)
            ip("link", "set", link, "netns", f"/proc/{os.getpid()}/fd/{host}")
            ip("link", "set", "eth0", "up")
        finally:
            _call("setns", host, CLONE_NEWNET)
            os.close(host)
        self.mac = mac
        ip("link", "set", link, *(("master", bridge) if bridge else ()), "up")

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is in the machine's namespace."""
        host = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        _call("setns", self._namespace, CLONE_NEWNET)
        try:
            yield
        finally:
            _call("setns", host, CLONE_NEWNET)
            os.close(host)

    def ip(self, *arguments: str) -> str:
        """Run the ip program in it."""
        with self.inside():
            return ip(*arguments)

    def socket(self, kind: int, family: int = socket.AF_INET) -> socket.socket:
        """A socket in it."""
        with self.inside():
            return socket.socket(family, kind)

    def close(self) -> None:
        """Give the namespace back."""
        os.close(self._namespace)


@dataclass(frozen=True)
class Offer:
    """What a DHCP server acknowledged: the address, and options by number."""

    address: str
    options: dict[int, bytes]


async def dhcp(machine: Machine, *, hostname: str = "") -> Offer:
    """Ask for an address until there is one, as RFC 2131 has it, and set it with its gateway."""
    async with asyncio.timeout(ANSWER_S):
        while True:
            found = _exchange(machine, 1, hostname=hostname)
            if found is not None:
                ack = _exchange(machine, 3, offer=found, hostname=hostname)
                if ack is not None:
                    return ack
            await asyncio.sleep(0.1)


def use(machine: Machine, offer: Offer) -> None:
    """Have the machine use what it was given."""
    length = sum(byte.bit_count() for byte in offer.options[1])
    machine.ip("addr", "replace", f"{offer.address}/{length}", "dev", "eth0")
    if 3 in offer.options:
        machine.ip("route", "replace", "default", "via", socket.inet_ntoa(offer.options[3][:4]))


def _exchange(
    machine: Machine, kind: int, *, offer: Offer | None = None, hostname: str = ""
) -> Offer | None:
    options = bytes((53, 1, kind, 55, 5, 1, 3, 6, 15, 26))
    if offer is not None:
        options += bytes((50, 4)) + socket.inet_aton(offer.address)
        options += bytes((54, 4)) + offer.options[54]
    if hostname:
        options += bytes((12, len(hostname))) + hostname.encode()
    mac = bytes.fromhex(machine.mac.replace(":", ""))
    head = struct.pack("!BBBBIHH16x16s192x", 1, 1, 6, 0, 0x1234 + kind, 0, 0x8000, mac)
    client = machine.socket(socket.SOCK_DGRAM)
    with client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        client.settimeout(SILENCE_S)
        client.bind(("", 68))
        client.sendto(head + _MAGIC + options + b"\xff", ("255.255.255.255", 67))
        try:
            answer = client.recv(2048)
        except TimeoutError:
            return None
    found = dict(_options(answer[240:]))
    if found.get(53) not in (b"\x02", b"\x05"):
        return None
    return Offer(socket.inet_ntoa(answer[16:20]), found)


async def dhcp6(machine: Machine) -> str:
    """The address that a server offers to a machine, RFC 8415; asked until there is one."""
    duid = b"\0\3\0\1" + bytes.fromhex(machine.mac.replace(":", ""))
    wanted = struct.pack("!HH", 1, len(duid)) + duid + struct.pack("!HHIII", 3, 12, 7, 0, 0)
    client = machine.socket(socket.SOCK_DGRAM, socket.AF_INET6)
    with client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        client.settimeout(SILENCE_S)
        client.bind(("::", 546))
        async with asyncio.timeout(ANSWER_S):
            while True:
                with contextlib.suppress(OSError):  # its own address is not yet sure of itself
                    client.sendto(b"\1\0\0\1" + wanted, ("ff02::1:2", 547))
                    answer = client.recv(2048)
                    place = answer.find(struct.pack("!HH", 5, 24))  # an address with its lives
                    if answer[:1] == b"\2" and place > 0:
                        return socket.inet_ntop(socket.AF_INET6, answer[place + 4 : place + 20])
                await asyncio.sleep(0.1)


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + 1 < len(data) and data[place] != 255:
        size = data[place + 1]
        yield data[place], data[place + 2 : place + 2 + size]
        place += 2 + size


def ask(machine: Machine, server: str, name: str) -> str | None:
    """The first address of a name by a server; "" for none, None where nobody answers."""
    words = b"".join(bytes((len(word),)) + word.encode() for word in name.split("."))
    question = words + b"\0" + struct.pack("!HH", 1, 1)
    client = machine.socket(socket.SOCK_DGRAM)
    with client:
        client.settimeout(SILENCE_S)
        client.sendto(struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + question, (server, 53))
        try:
            answer = client.recv(2048)
        except (TimeoutError, ConnectionRefusedError):
            return None
    count = struct.unpack_from("!H", answer, 6)[0]
    return socket.inet_ntoa(answer[-4:]) if count else ""


def serve_tcp(machine: Machine, port: int = 80, *, family: int = socket.AF_INET) -> socket.socket:
    """A socket that takes connections."""
    found = machine.socket(socket.SOCK_STREAM, family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("", port))
    found.listen(8)
    found.settimeout(ANSWER_S)
    return found


def taken_from(listening: socket.socket) -> str:
    """The address that the next connection comes from; it is closed."""
    found, address = listening.accept()
    found.close()
    return str(address[0])


def connects(machine: Machine, address: str, port: int = 80, *, wait_s: float = ANSWER_S) -> bool:
    """Tell whether somebody takes a connection."""
    client = machine.socket(
        socket.SOCK_STREAM, socket.AF_INET6 if ":" in address else socket.AF_INET
    )
    with client:
        client.settimeout(wait_s)
        try:
            client.connect((address, port))
        except (TimeoutError, OSError):
            return False
    return True


class LocalProcesses:
    """dnsmasq as the node's supervisor would run it, by the test itself."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.starts: list[str] = []

    async def start(self, network: str) -> None:
        """Replace the process."""
        self._end(network)
        command = prepare({"state_dir": str(self._state_dir), "network": network})
        log = self._state_dir / f"{network}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(  # noqa: ASYNC220 - it inherits this thread's namespace
                command.argv,
                env={"PATH": PATH, **command.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
            )
        # As if the process had prepared itself.
        pid_file(self._state_dir, network).write_text(str(process.pid))
        async with asyncio.timeout(ANSWER_S):
            while b"started, version" not in (said := log.read_bytes()):
                if process.poll() is not None:
                    raise DnsmasqFailedError(f"network {network}: {said.decode()}")
                await asyncio.sleep(0.005)
        self.processes[network] = process
        self.starts.append(network)

    async def stop(self, network: str) -> None:
        """End the process."""
        self._end(network)

    async def states(self) -> dict[str, str]:
        """Who runs."""
        return {
            name: "" if process.poll() is None else f"ended with {process.returncode}"
            for name, process in self.processes.items()
        }

    def _end(self, network: str) -> None:
        process = self.processes.pop(network, None)
        if process is not None:
            process.kill()
            process.wait()

    def close(self) -> None:
        """End all of them."""
        for network in list(self.processes):
            self._end(network)


class Host:
    """The part that serves, with all that it works with."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.context = MemoryServiceContext(path="core/network")
        self.processes = LocalProcesses(state_dir)
        self._netlink = Netlink()
        self._links: tuple[Link, ...] = ()
        self.part = ServingPart(
            self.context,
            state_dir,
            self.processes,
            links=lambda: self._links,
            on_change=lambda: None,
        )

    async def serve(self, *networks: ServedNetwork) -> None:
        """Serve these networks; nothing may fail."""
        await self.see_links()
        await self.part.serve(networks)
        assert self.part.health.reason == ""

    async def see_links(self) -> None:
        """Read the host's links, as the service does after each change."""
        self._links = await self._netlink.read_links()

    def close(self) -> None:
        """End what it started."""
        self.part.close()
        self._netlink.close()
        self.processes.close()


@contextlib.contextmanager
def passable(owner: int) -> Iterator[Path]:
    """A directory of that user's that others may pass through."""
    with tempfile.TemporaryDirectory(prefix="nc-serving-") as directory:
        os.chown(directory, owner, -1)
        Path(directory).chmod(0o711)
        yield Path(directory)


@asynccontextmanager
async def host() -> AsyncIterator[Host]:
    """A host with a state directory that dnsmasq's account may pass through."""
    with passable(os.geteuid()) as directory:
        found = Host(directory)
        try:
            yield found
        finally:
            found.close()


def in_host(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run an asynchronous scenario in a fresh namespace, where dnsmasq is installed."""
    for program in ("dnsmasq", "nft"):
        if shutil.which(program, path=PATH) is None:
            pytest.skip(f"there is no {program}")

    async def run() -> None:
        await scenario()

    run_in_netns(lambda: asyncio.run(run()))


@contextlib.contextmanager
def machines(*, mtu: int = 1500) -> Iterator[tuple[Machine, Machine]]:
    """A bridge br0 with 10.20.0.1/24 and a guest on it, and the world behind up0."""
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "br0", "mtu", str(mtu))  # else it takes that of its ports
    ip("addr", "add", "10.20.0.1/24", "dev", "br0")
    ip("link", "set", "br0", "up")
    guest = Machine("tap1", bridge="br0")
    world = Machine("up0", mac="52:54:00:00:00:99")
    ip("addr", "add", "192.0.2.1/24", "dev", "up0")
    ip("route", "add", "default", "via", WORLD)
    world.ip("addr", "add", f"{WORLD}/24", "dev", "eth0")
    try:
        yield guest, world
    finally:
        guest.close()
        world.close()


def network(mode: Mode = Mode.NAT, **fields: object) -> ServedNetwork:
    """The network lan on br0: a range, a reservation that is nobody's yet, and names."""
    known: dict[str, object] = {
        "gateway": "10.20.0.1/24",
        "mode": mode,
        "dhcp": True,
        "ranges": (Range(first="10.20.0.100", last="10.20.0.199"),),
        "reservations": (
            Reservation(mac="52:54:00:00:00:77", address="10.20.0.11", hostname="web"),
        ),
        "dns": Dns(domain="lan.example"),
        **fields,
    }
    subnet = Subnet(**known)  # type: ignore[arg-type]  # fields of a subnet
    return ServedNetwork(name="lan", link="br0", subnets=(subnet,))
