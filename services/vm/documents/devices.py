"""The parts of a VM document: processors, memory, firmware, disks, networks, cloud-init."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field

from services.vm.documents.checks import check_cpu_set, check_path, check_range, parse_size

# As the hypervisor's own limits, or well above what a host has.
CPUS_MAX = 512
TEXT_BYTES_MAX = 64 << 10
BOOT_ORDER_MAX = 99
LINK_NAME_BYTES_MAX = 15
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")
_LINK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_SERIAL = re.compile(r"[A-Za-z0-9_.+-]{1,36}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


class Accelerator(enum.Enum):
    """How the guest's processors are run; ``auto`` takes KVM where libvirt offers it."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


class FirmwareKind(enum.Enum):
    """What starts the guest."""

    BIOS = "bios"
    UEFI = "uefi"


class DiskDevice(enum.Enum):
    """What the guest sees."""

    DISK = "disk"
    CDROM = "cdrom"


class DiskFormat(enum.Enum):
    """The image's format; never guessed, as a guest could write another one's header."""

    RAW = "raw"
    QCOW2 = "qcow2"


class DiskBus(enum.Enum):
    """What the disk hangs on."""

    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"
    IDE = "ide"
    USB = "usb"


class DiskCache(enum.Enum):
    """QEMU's cache modes; ``default`` leaves it to the hypervisor."""

    DEFAULT = "default"
    NONE = "none"
    WRITEBACK = "writeback"
    WRITETHROUGH = "writethrough"
    DIRECTSYNC = "directsync"
    UNSAFE = "unsafe"


class Discard(enum.Enum):
    """What becomes of blocks that the guest gives back."""

    IGNORE = "ignore"
    UNMAP = "unmap"


class NicModel(enum.Enum):
    """The network card that the guest sees."""

    VIRTIO = "virtio"
    E1000 = "e1000"
    E1000E = "e1000e"
    RTL8139 = "rtl8139"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """How the processors are arranged; the product is the count (the maximum, where there is one).

    Raises:
        ValueError: a number is not 1 to 512.
    """

    sockets: int = 1
    cores: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("sockets", "cores", "threads"):
            check_range(name, getattr(self, name), 1, CPUS_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpus:
    """The processors.

    Attributes:
        maximum: may be added up to here while the guest runs; 0 for none.
        model: ``default``, ``host-model``, ``host-passthrough``, ``maximum``, or a model's name.
        pinning: for each processor in turn the host's that it may run on, as ``0-3,8``; all or
            none of the processors, the maximum included.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    count: int = 1
    maximum: int = 0
    model: str = "default"
    topology: Topology | None = None
    pinning: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_range("count", self.count, 1, CPUS_MAX)
        if self.maximum and not self.count <= self.maximum <= CPUS_MAX:
            raise ValueError(f"maximum is {self.maximum}; expected count to {CPUS_MAX}, or 0")
        if _WORD.fullmatch(self.model) is None:
            raise ValueError(f"model is {self.model!r:.60}; expected a name such as host-model")
        if self.topology is not None:
            product = self.topology.sockets * self.topology.cores * self.topology.threads
            if product != self.most:
                raise ValueError(
                    f"topology has {product} processors; expected sockets x cores x threads "
                    f"to be {self.most}"
                )
        if self.pinning and len(self.pinning) != self.most:
            raise ValueError(
                f"pinning has {len(self.pinning)} entries; expected one per processor, {self.most}"
            )
        for text in self.pinning:
            check_cpu_set(text)

    @property
    def most(self) -> int:
        """The processors that the guest can ever have."""
        return self.maximum or self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory, as ``512MiB`` or ``2GiB``.

    Attributes:
        maximum: may be given up to here while the guest runs, by the balloon; "" for the size.

    Raises:
        ValueError: a size is not understood or out of range.
    """

    size: str = "1GiB"
    maximum: str = ""

    def __post_init__(self) -> None:
        parse_size(self.size, "size")
        if self.maximum and parse_size(self.maximum, "maximum") < self.bytes:
            raise ValueError(f"maximum is {self.maximum}; expected at least the size, {self.size}")

    @property
    def bytes(self) -> int:
        """What the guest has."""
        return parse_size(self.size, "size")

    @property
    def bytes_max(self) -> int:
        """What it can be given."""
        return parse_size(self.maximum or self.size, "maximum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Firmware:
    """What starts the guest.

    Raises:
        ValueError: secure boot without UEFI.
    """

    kind: FirmwareKind = FirmwareKind.BIOS
    secure_boot: bool = False

    def __post_init__(self) -> None:
        if self.secure_boot and self.kind is not FirmwareKind.UEFI:
            raise ValueError("secure_boot needs the kind uefi")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One disk: an image file, or a volume of a libvirt pool.

    Attributes:
        path: absolute; or ``pool`` and ``volume``; none of them for an empty CD drive.
        serial: what the guest finds it by.
        boot: place in the boot order from 1; 0 for no place.

    Raises:
        ValueError: a field is out of its range, or fields contradict each other.
    """

    path: str = ""
    pool: str = ""
    volume: str = ""
    device: DiskDevice = DiskDevice.DISK
    format: DiskFormat = DiskFormat.QCOW2
    bus: DiskBus = DiskBus.VIRTIO
    cache: DiskCache = DiskCache.DEFAULT
    discard: Discard = Discard.IGNORE
    serial: str = ""
    boot: int = 0
    read_only: bool = False

    def __post_init__(self) -> None:
        if self.path and (self.pool or self.volume):
            raise ValueError("path excludes pool and volume")
        if bool(self.pool) != bool(self.volume):
            raise ValueError("pool and volume belong together")
        is_cdrom = self.device is DiskDevice.CDROM
        if not (self.path or self.pool or is_cdrom):
            raise ValueError("it has no source; expected path, or pool and volume")
        if self.path:
            check_path("path", self.path)
        for name in ("pool", "volume"):
            text = getattr(self, name)
            if text and (_WORD.fullmatch(text) is None):
                raise ValueError(f"{name} is {text!r:.60}; expected a name without slashes")
        if is_cdrom and self.bus is DiskBus.VIRTIO:
            raise ValueError("bus is virtio; a CD drive needs sata, scsi, ide or usb")
        if self.serial and _SERIAL.fullmatch(self.serial) is None:
            raise ValueError(
                f"serial is {self.serial!r:.60}; expected 1 to 36 letters, digits and _.+-"
            )
        check_range("boot", self.boot, 0, BOOT_ORDER_MAX)

    @property
    def source(self) -> str:
        """Its path, or pool and volume; "" for an empty drive."""
        return self.path or (f"{self.pool}/{self.volume}" if self.pool else "")

    @property
    def is_cdrom(self) -> bool:
        """It is a CD drive, which never writes."""
        return self.device is DiskDevice.CDROM


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """One network card, on a bridge of the host or in a libvirt network.

    Attributes:
        mac: "" for one that follows from the VM's name and the card's place.
        segment: the label that segment rules know it by.
        boot: as for disks.

    Raises:
        ValueError: a field is out of its range, or both or neither of bridge and network is said.
    """

    bridge: str = ""
    network: str = ""
    mac: str = ""
    model: NicModel = NicModel.VIRTIO
    segment: str = ""
    boot: int = 0

    def __post_init__(self) -> None:
        if bool(self.bridge) == bool(self.network):
            raise ValueError("expected either bridge or network")
        if self.bridge and _LINK.fullmatch(self.bridge) is None:
            raise ValueError(
                f"bridge is {self.bridge!r:.60}; a link name has 1 to {LINK_NAME_BYTES_MAX} "
                "letters, digits, dots, dashes and underscores"
            )
        if self.network and _WORD.fullmatch(self.network) is None:
            raise ValueError(f"network is {self.network!r:.60}; expected a network's name")
        if self.mac and (_MAC.fullmatch(self.mac) is None or int(self.mac[:2], 16) & 1):
            raise ValueError(
                f"mac is {self.mac!r:.60}; expected one such as 52:54:00:12:34:56, in small "
                "letters and not multicast"
            )
        if self.segment and _LABEL.fullmatch(self.segment) is None:
            raise ValueError(
                f"segment is {self.segment!r:.60}; a label has 1 to 32 small letters, digits and "
                "dashes"
            )
        check_range("boot", self.boot, 0, BOOT_ORDER_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudInit:
    """What cloud-init in the guest is told, as the texts of its NoCloud source.

    Raises:
        ValueError: a text is too long, or there is no user_data and no meta_data.
    """

    user_data: str = field(default="", repr=False)  # may hold passwords
    meta_data: str = ""
    network_config: str = ""

    def __post_init__(self) -> None:
        for name in ("user_data", "meta_data", "network_config"):
            size = len(getattr(self, name).encode())
            if "\0" in getattr(self, name):
                raise ValueError(f"{name} holds a zero byte; expected text")
            if size > TEXT_BYTES_MAX:
                raise ValueError(f"{name} has {size} bytes; at most {TEXT_BYTES_MAX} are allowed")
        if not (self.user_data or self.meta_data or self.network_config):
            raise ValueError("it is empty; expected user_data, meta_data or network_config")
