"""Starts, finds, moves and ends the guests of a lab, by plain libvirt."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from tests.lab.errors import LabError
from tests.lab.guest.image import Image, build_image
from tests.lab.guest.readers import Console, Tick, parse_ticks
from tests.lab.host import Host
from tests.lab.lab import Lab

BOOT_TIMEOUT_S = 60.0
IMAGE_DIR = "/var/lib/libvirt/images"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
# The address of a guest's number; the hosts have 201 and above.
NUMBERS_MAX = 199
_DOMAIN = """
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 quiet no_timer_check {arguments}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <on_crash>preserve</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'>
      <mac address='52:54:00:88:00:{number:02x}'/>
      <source bridge='lab0'/>
      <model type='virtio'/>
    </interface>
    <serial type='file'>
      <source path='{console}' append='on'/>
      <target port='0'/>
    </serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPlan:
    """What a guest is and does.

    Attributes:
        name: of its domain.
        number: 1 to 199, its address 10.88.0.<number>; no other guest may have it.
        memory_mib: of the machine; its kernel needs about 100.
        tick_ms: between two lines on its console.
        disk_mib: size of its disk.
        disk_writes_s: blocks of 4 KiB that it writes per second.
        dirty_mib: memory that it writes in turn.
        pages_s: pages of 4 KiB that it writes per second.
    """

    name: str = "guest1"
    number: int = 1
    memory_mib: int = 128
    tick_ms: int = 100
    disk_mib: int = 4
    disk_writes_s: int = 20
    dirty_mib: int = 16
    pages_s: int = 100

    @property
    def address(self) -> str:
        """Where it answers on UDP port 7777."""
        return f"10.88.0.{self.number}"


def disk_path(name: str) -> str:
    """A guest's disk as its host sees it."""
    return f"{IMAGE_DIR}/{name}.img"


def console_path(name: str) -> str:
    """What a guest's console has said on a host, as the host sees it."""
    return f"/var/log/libvirt/{name}.console"


def domain_xml(plan: GuestPlan, image: Image) -> str:
    """The libvirt document of a guest.

    Raises:
        LabError: a value is out of its range.
    """
    if not _NAME.fullmatch(plan.name):
        raise LabError(f"a guest's name is a-z, then a-z, 0-9 and '-', not {plan.name!r}")
    if not 1 <= plan.number <= NUMBERS_MAX:
        raise LabError(f"a guest's number is 1 to {NUMBERS_MAX}, not {plan.number}")
    if plan.memory_mib < 96 + plan.dirty_mib:
        raise LabError(f"{plan.dirty_mib} MiB to write need {96 + plan.dirty_mib} MiB of memory")
    if plan.tick_ms < 1 or plan.disk_mib < 1:
        raise LabError("a tick has at least 1 ms, and a disk 1 MiB")
    arguments = (
        f"lab.address={plan.address}/24 lab.tick_ms={plan.tick_ms} lab.disk_s={plan.disk_writes_s}"
        f" lab.memory_mib={plan.dirty_mib} lab.pages_s={plan.pages_s}"
    )
    return _DOMAIN.format(
        name=plan.name,
        number=plan.number,
        memory_mib=plan.memory_mib,
        kernel=image.kernel,
        initrd=image.initrd,
        arguments=arguments,
        disk=disk_path(plan.name),
        console=console_path(plan.name),
    )


def start(lab: Lab, host: Host, plan: GuestPlan) -> Tick:
    """Define and start a guest; returns its first tick.

    Raises:
        LabError: libvirt refused, or it did not tick in time.
    """
    xml = domain_xml(plan, build_image())
    if any(plan.name in domains(other) for other in lab.hosts):
        raise LabError(f"there is a guest {plan.name} already: stop it, or give another --name")
    make_disk(host, plan)
    for other in lab.hosts:
        other.place(console_path(plan.name)).unlink(missing_ok=True)
    document = host.directory / f"{plan.name}.xml"
    document.write_text(xml)
    host.run("virsh", "define", str(document))
    host.run("virsh", "start", plan.name)
    deadline_s = time.monotonic() + BOOT_TIMEOUT_S
    while not (ticks := console(lab, plan.name).ticks):
        if time.monotonic() > deadline_s:
            said = host.run("tail", "-c", "600", console_path(plan.name))
            raise LabError(f"{plan.name} does not tick: {said}")
        time.sleep(0.05)
    return ticks[0]


def make_disk(host: Host, plan: GuestPlan) -> None:
    """Make an empty disk of the guest's size: where it starts, or where it is to be moved."""
    with host.place(disk_path(plan.name)).open("wb") as disk:
        disk.truncate(plan.disk_mib << 20)


def move(source: Host, target: Host, name: str, *flags: str, timeout_s: float = 120.0) -> float:
    """Move a guest to another host live, with its disk, peer to peer; returns how long it took.

    Args:
        source: where it runs.
        target: where it shall run.
        name: of its domain.
        *flags: further ones for ``virsh migrate``.
        timeout_s: for all of it.

    Raises:
        LabError: libvirt refused; the guest runs on where it was.
    """
    size = source.place(disk_path(name)).stat().st_size
    with target.place(disk_path(name)).open("wb") as disk:
        disk.truncate(size)
    begin_s = time.monotonic()
    argv = ["virsh", "migrate", "--live", "--p2p", "--persistent", "--undefinesource"]
    argv += ["--copy-storage-all", *flags, name, f"qemu+tcp://{target.name}/system"]
    source.run(*argv, timeout_s=timeout_s)
    return time.monotonic() - begin_s


def stop(lab: Lab, name: str) -> list[str]:
    """End a guest and remove its domain wherever it is; returns the names of those hosts."""
    found = [host for host in lab.hosts if name in domains(host)]
    for host in found:
        if domains(host)[name] != "shut off":
            host.run("virsh", "destroy", name)
        host.run("virsh", "undefine", name)
    return [host.name for host in found]


def domains(host: Host) -> dict[str, str]:
    """States, as virsh names them, of a host's domains."""
    lines = host.run("virsh", "list", "--all").splitlines()[2:]
    return {line.split()[1]: " ".join(line.split()[2:]) for line in lines if line.strip()}


def where(lab: Lab, name: str) -> Host:
    """The host on which a guest runs.

    Raises:
        LabError: it runs on none, or on more than one.
    """
    found = [host for host in lab.hosts if domains(host).get(name) == "running"]
    if len(found) != 1:
        places = " and ".join(host.name for host in found) or "no host"
        raise LabError(f"{name} runs on {places}")
    return found[0]


def address_of(host: Host, name: str) -> str:
    """The address that a guest on a host was started with."""
    match = re.search(r"lab\.address=([\d.]+)/", host.run("virsh", "dumpxml", name))
    if match is None:
        raise LabError(f"{name} on {host.name} is no guest of the lab's")
    return match[1]


def console(lab: Lab, name: str) -> Console:
    """Everything that a guest has said, on whichever hosts it was."""
    parts = []
    for host in lab.hosts:
        path = host.place(console_path(name))
        parts.append(path.read_bytes() if path.exists() else b"")
    return parse_ticks(parts)
