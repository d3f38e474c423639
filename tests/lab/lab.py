"""A whole lab: builds it, finds one that is there, takes it down."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, repeat
from pathlib import Path

from tests.lab.errors import LabError, MissingError, require
from tests.lab.host import HOSTS_MAX, LIBVIRTD, NODE, Host
from tests.lab.link import Link
from tests.lab.marks import BASE, kill_marked, lab_dir, marked_pids, process_id
from tests.lab.units import Shape

_STATE, _OWNER = "lab.json", "owner"
_UNSHAPED = Shape()
_SAY = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabPlan:
    """What is to be built.

    Attributes:
        hosts: how many, 2 to 8; each two of them get a link.
        shape: of both directions of each link at the beginning.
        has_libvirtd, has_nodes: what is started on each host.
        owner_pid: process that the lab ends with; None: it stays until it is taken down.
    """

    hosts: int = 2
    shape: Shape = _UNSHAPED
    has_libvirtd: bool = True
    has_nodes: bool = True
    owner_pid: int | None = None


class Lab:
    """A lab that is there.

    Attributes:
        directory: everything that it consists of, apart from processes.
        hosts: by order of their numbers.
        links: by order of their hosts' numbers.
    """

    def __init__(self, directory: Path, hosts: list[Host], links: list[Link]) -> None:
        self.directory = directory
        self.hosts = hosts
        self.links = links

    def host(self, name: str) -> Host:
        """A host by name or number.

        Raises:
            LabError: there is none of that name.
        """
        for host in self.hosts:
            if name in (host.name, str(host.number)):
                return host
        known = ", ".join(host.name for host in self.hosts)
        raise LabError(f"the lab has no {name}: it has {known}")

    def link(self, name: str = "1-2") -> Link:
        """A link by the numbers of its hosts.

        Raises:
            LabError: there is none of that name.
        """
        for link in self.links:
            if link.name == name:
                return link
        raise LabError(f"the lab has no link {name}: {', '.join(link.name for link in self.links)}")


def build(name: str, plan: LabPlan, *, say: _SAY = lambda _: None) -> Lab:
    """Build a lab; what it had built is taken down again where that fails or is interrupted.

    Args:
        name: its name; labs of several names can be there at once.
        plan: what to build.
        say: gets a sentence per step.

    Raises:
        MissingError: this machine lacks something.
        LabError: there is one of that name, or a step failed.
    """
    directory = lab_dir(name)
    if not 2 <= plan.hosts <= HOSTS_MAX:
        raise LabError(f"a lab has 2 to {HOSTS_MAX} hosts, not {plan.hosts}")
    check_machine(plan)
    if directory.exists() or marked_pids(directory):
        raise LabError(f"lab {name} is there already: take it down first")
    directory.mkdir(parents=True)
    try:
        if plan.owner_pid is not None:
            (directory / _OWNER).write_text(process_id(plan.owner_pid))
        return _build(directory, plan, say)
    except BaseException:
        take_down(name)
        raise


def find(name: str) -> Lab:
    """A lab that was built before.

    Raises:
        LabError: it is not there, or only what an interrupted program has left of it.
    """
    directory = lab_dir(name)
    try:
        state = json.loads((directory / _STATE).read_text())
    except FileNotFoundError:
        part = "half built: take it down" if directory.exists() else "not there: 'up' builds it"
        raise LabError(f"lab {name} is {part}") from None
    hosts = [Host(directory, int(number), pid=pid) for number, pid in state["hosts"].items()]
    alive = marked_pids(directory)
    for host in hosts:
        if host.pid not in alive:
            raise LabError(f"{host.name} of lab {name} has ended: take the lab down")
    return Lab(directory, hosts, [Link(directory, *pair) for pair in state["links"]])


def take_down(name: str) -> bool:
    """End everything of a lab and remove it; tells whether there was something.

    Raises:
        LabError: a process can't be ended.
    """
    directory = lab_dir(name)
    was_there = directory.exists() or bool(marked_pids(directory))
    kill_marked(directory)
    if directory.exists():
        shutil.rmtree(directory)
    with contextlib.suppress(OSError):
        BASE.rmdir()
    return was_there


def take_down_orphans() -> list[str]:
    """Remove what is left of labs whose owner has ended; returns their names."""
    found = []
    for name in names():
        with contextlib.suppress(FileNotFoundError):
            owner = (lab_dir(name) / _OWNER).read_text()
            if process_id(int(owner.split()[0])) != owner:
                take_down(name)
                found.append(name)
    return found


def names() -> list[str]:
    """The labs that are there, whole or not."""
    return sorted(entry.name for entry in BASE.iterdir()) if BASE.exists() else []


def check_machine(plan: LabPlan) -> None:
    """See whether this machine has what the lab needs.

    Raises:
        MissingError: it does not; the message says what would help.
    """
    if os.geteuid() != 0:
        raise MissingError("a lab needs root: namespaces, mounts and TUN devices are made for it")
    if not Path("/dev/net/tun").exists():
        raise MissingError("/dev/net/tun is missing: load the kernel module tun (modprobe tun)")
    programs = ["cc", "ip", "mount", "nsenter", "unshare"]
    programs += ["libvirtd", "qemu-system-x86_64", "virsh"] * plan.has_libvirtd
    for program in programs:
        require(program)


def _build(directory: Path, plan: LabPlan, say: _SAY) -> Lab:
    begin_s = time.monotonic()
    hosts = [Host(directory, number) for number in range(1, plan.hosts + 1)]
    links = [Link(directory, *pair) for pair in combinations(range(1, plan.hosts + 1), 2)]
    with ThreadPoolExecutor(len(hosts)) as pool:
        try:
            _make_hosts(hosts, plan, pool)
            _join(hosts, links, plan.shape)
            say(f"{len(hosts)} hosts and their links after {time.monotonic() - begin_s:.1f} s")
            for service in _services(plan):
                list(pool.map(Host.start_service, hosts, repeat(service)))
                say(f"{service} on each after {time.monotonic() - begin_s:.1f} s")
        except BaseException:
            # The pool's threads wait for services; without the hosts they give up at once.
            kill_marked(directory)
            raise
    state = {
        "hosts": {host.number: host.pid for host in hosts},
        "links": [(link.first, link.second) for link in links],
    }
    (directory / _STATE).write_text(json.dumps(state))
    return Lab(directory, hosts, links)


def _make_hosts(hosts: list[Host], plan: LabPlan, pool: ThreadPoolExecutor) -> None:
    owner = None if plan.owner_pid is None else os.pidfd_open(plan.owner_pid)
    try:
        for host in hosts:
            host.prepare(len(hosts))
        list(pool.map(Host.start, hosts, repeat(owner)))
    finally:
        if owner is not None:
            os.close(owner)


def _join(hosts: list[Host], links: list[Link], shape: Shape) -> None:
    pids = {host.number: host.pid for host in hosts}
    for link in links:
        link.start(pids[link.first], pids[link.second])
        link.change(shape)
    for host in hosts:
        host.connect([other for other in pids if other != host.number])


def _services(plan: LabPlan) -> list[str]:
    return [LIBVIRTD] * plan.has_libvirtd + [NODE] * plan.has_nodes
