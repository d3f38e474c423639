"""The document that says what one virtual machine should be.

name: web-1
cpus: {count: 2, model: host-model}
memory: {size: 2GiB, maximum: 4GiB}
disks:
- {path: /var/lib/libvirt/images/web-1.qcow2, boot: 1}
networks:
- {bridge: novacron0, segment: web}
power: on
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from protocol.records import to_wire
from services.vm.documents.checks import check_range
from services.vm.documents.devices import (
    Accelerator,
    CloudInit,
    Cpus,
    Disk,
    DiskBus,
    Firmware,
    FirmwareKind,
    Memory,
    Nic,
)

# Some hundreds of them and their plan go through one message of 1 MiB.
DOCUMENT_BYTES_MAX = 160 << 10
DISKS_MAX = 32
NETWORKS_MAX = 32
LABELS_MAX = 32
PLACES_MAX = 64
NAME_MAX = 63
TITLE_MAX = 200
PRIORITY_MAX = 1000
# Of the addresses and UUIDs that follow from names. Never to be changed: guests know theirs.
NAMESPACE = uuid.UUID("6f0c6c57-4a3b-5a0e-9d0e-6e6f76616372")
_NAME = re.compile(rf"[a-zA-Z0-9][a-zA-Z0-9._-]{{0,{NAME_MAX - 1}}}")
_MACHINE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_KEY = re.compile(r"[a-z0-9]([a-z0-9./-]{0,61}[a-z0-9])?")


class Power(enum.Enum):
    """What a plan does about running; ``keep`` leaves the guest as it is."""

    KEEP = "keep"
    ON = "on"
    OFF = "off"


class Console(enum.Enum):
    """The text console."""

    SERIAL = "serial"
    VIRTIO = "virtio"
    NONE = "none"


class Graphics(enum.Enum):
    """The screen; listens on 127.0.0.1 alone."""

    NONE = "none"
    VNC = "vnc"
    SPICE = "spice"


class OnCrash(enum.Enum):
    """What becomes of a guest whose system crashed."""

    DESTROY = "destroy"
    RESTART = "restart"
    PRESERVE = "preserve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the VM may be.

    Attributes:
        nodes: ids of the nodes that may have it; none for all.
        apart_from: names of VMs that must not run on the same node.

    Raises:
        ValueError: too many entries, or one that is no name.
    """

    nodes: tuple[str, ...] = ()
    apart_from: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_count("nodes", self.nodes, PLACES_MAX)
        check_count("apart_from", self.apart_from, PLACES_MAX)
        for name in self.apart_from:
            check_name(name, "apart_from")
        for node in self.nodes:
            if not node or len(node) > NAME_MAX or not node.isprintable():
                raise ValueError(f"nodes has {node!r:.60}; expected a node's id")


@dataclass(frozen=True, slots=True, kw_only=True)
class VmDocument:
    """One virtual machine as it should be; see the module and docs/vm.md.

    Attributes:
        name: unique among all nodes of a database.
        uuid: "" for the one that follows from the name.
        machine: ``q35``, ``pc``, or a version of them such as ``pc-q35-7.2``.
        priority: the higher one is started first; 0 to 1000.

    Raises:
        ValueError: a field is out of its range, or fields contradict each other.
    """

    name: str
    title: str = ""
    uuid: str = ""
    cpus: Cpus = field(default_factory=Cpus)
    memory: Memory = field(default_factory=Memory)
    firmware: Firmware = field(default_factory=Firmware)
    machine: str = "q35"
    accelerator: Accelerator = Accelerator.AUTO
    disks: tuple[Disk, ...] = ()
    networks: tuple[Nic, ...] = ()
    cloud_init: CloudInit | None = None
    console: Console = Console.SERIAL
    graphics: Graphics = Graphics.NONE
    guest_agent: bool = True
    on_crash: OnCrash = OnCrash.DESTROY
    placement: Placement = field(default_factory=Placement)
    power: Power = Power.KEEP
    autostart: bool = False
    priority: int = 500
    labels: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        if len(self.title) > TITLE_MAX or not self.title.isprintable():
            raise ValueError(f"title is too long or no line; at most {TITLE_MAX} letters")
        if self.uuid and not _is_uuid(self.uuid):
            raise ValueError(
                f"uuid is {self.uuid!r:.60}; expected one such as "
                "7b7f5a1e-0a6a-4a5a-8a49-2f8e0f5b8a11, in small letters"
            )
        if _MACHINE.fullmatch(self.machine) is None:
            raise ValueError(f"machine is {self.machine!r:.60}; expected q35, pc or a version")
        if self.firmware.secure_boot and "q35" not in self.machine:
            raise ValueError("firmware: secure_boot needs the machine q35")
        # The image that cloud-init reads is a disk too.
        check_count("disks", self.disks, DISKS_MAX - (self.cloud_init is not None))
        for index, disk in enumerate(self.disks):
            if disk.bus is DiskBus.IDE and "q35" in self.machine:
                raise ValueError(f"disks[{index}]: bus is ide; expected sata with the machine q35")
        check_count("networks", self.networks, NETWORKS_MAX)
        check_range("priority", self.priority, 0, PRIORITY_MAX)
        self._check_labels()
        self._check_unique()
        if len(canonical(self)) > DOCUMENT_BYTES_MAX:
            raise ValueError(f"it has more than {DOCUMENT_BYTES_MAX >> 10} KiB")

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the document's canonical form, in hex."""
        return hashlib.sha256(canonical(self)).hexdigest()

    @property
    def domain_uuid(self) -> str:
        """The UUID that is said, or the one that follows from the name."""
        return self.uuid or str(uuid.uuid5(NAMESPACE, self.name))

    def mac(self, index: int) -> str:
        """The hardware address of a card: what is said, or what follows from name and place."""
        said = self.networks[index].mac
        return said or derived_mac(self.name, index)

    def _check_labels(self) -> None:
        check_count("labels", tuple(self.labels), LABELS_MAX)
        for key, value in self.labels.items():
            if _KEY.fullmatch(key) is None or len(value) > NAME_MAX or not value.isprintable():
                raise ValueError(
                    f"labels has {key!r:.40}: {value!r:.40}; expected small letters, digits and "
                    f"./- as a key, and at most {NAME_MAX} letters as a value"
                )

    def _check_unique(self) -> None:
        places = (*(disk.boot for disk in self.disks), *(nic.boot for nic in self.networks))
        orders = [("boot", place) for place in places if place]
        sources = [
            ("path", disk.path) if disk.path else ("volume", f"{disk.pool}/{disk.volume}")
            for disk in self.disks
            if disk.path or disk.pool
        ]
        macs = [("mac", self.mac(index)) for index in range(len(self.networks))]
        serials = [("serial", disk.serial) for disk in self.disks if disk.serial]
        seen: set[tuple[str, object]] = set()
        for pair in (*orders, *sources, *macs, *serials):
            if pair in seen:
                raise ValueError(f"{pair[0]} {pair[1]} is said twice; expected it once")
            seen.add(pair)


def canonical(document: VmDocument) -> bytes:
    """The document as JSON that is the same for equal documents; defaults are left out."""
    return json.dumps(to_wire(document), sort_keys=True, separators=(",", ":")).encode()


def derived_mac(name: str, index: int) -> str:
    """The address that follows from a VM's name and a card's place, in QEMU's 52:54:00."""
    digest = hashlib.sha256(f"{NAMESPACE}/{name}/{index}".encode()).digest()
    return "52:54:00:" + ":".join(f"{octet:02x}" for octet in digest[:3])


def check_name(name: str, what: str) -> None:
    """Raise ValueError unless it can be a VM's name."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            f"{what} is {name!r:.70}; expected 1 to {NAME_MAX} letters, digits, dots, dashes and "
            "underscores"
        )


def check_count(title: str, items: Iterable[object], most: int) -> None:
    """Raise ValueError where there are more than allowed."""
    count = len(tuple(items))
    if count > most:
        raise ValueError(f"{title} has {count} entries; at most {most} are allowed")


def is_uefi(document: VmDocument) -> bool:
    """Tell whether UEFI starts it."""
    return document.firmware.kind is FirmwareKind.UEFI


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
