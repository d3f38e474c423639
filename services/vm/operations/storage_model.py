"""The records of what is stored: snapshots, images and seeds."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from services.vm.operations.model import DomainRequest, check_wait


class SnapshotKind(enum.Enum):
    """What a snapshot holds.

    ``disk``: the disks, in new files, as after pulling the plug. ``memory``: the disks and, in a
    file of its own, the memory. ``internal``: both, inside the qcow2 file; the only kind that
    libvirt 9 can go back to.
    """

    DISK = "disk"
    MEMORY = "memory"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotCreateRequest(DomainRequest):
    """Take a snapshot.

    Attributes:
        quiesce: have the guest's agent freeze its file systems meanwhile.
    """

    snapshot: str
    kind: SnapshotKind = SnapshotKind.DISK
    description: str = ""
    quiesce: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRequest(DomainRequest):
    """Go back to a snapshot, or remove it and keep what was written since."""

    snapshot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRecord:
    """One snapshot.

    Attributes:
        state: of the guest when it was taken, in libvirt's words.
        parent: "" for the first.
        files: the overlay of each disk that it made, by target; empty for an internal one.
    """

    name: str
    kind: SnapshotKind
    state: str = ""
    parent: str = ""
    is_current: bool = False
    created_s: int = 0
    description: str = ""
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotList:
    """Reply to ``vm.snapshot.list``."""

    snapshots: tuple[SnapshotRecord, ...] = ()


class ImageFormat(enum.Enum):
    """What NovaCron makes and takes."""

    QCOW2 = "qcow2"
    RAW = "raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """Ask about one image."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One image.

    Attributes:
        size_bytes: as a guest sees it.
        used_bytes: on disk; less for a sparse one.
        backing: the file that it is an overlay of; "" for none.
    """

    path: str
    format: str
    size_bytes: int
    used_bytes: int
    backing: str = ""
    is_in_use: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCreateRequest:
    """Make an empty image, or an overlay of ``backing``."""

    path: str
    size_bytes: int | None = None
    format: ImageFormat = ImageFormat.QCOW2
    backing: str = ""
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        check_wait(self.wait_s)
        if self.size_bytes is None and not self.backing:
            raise ValueError("size_bytes is needed where there is no backing image")
        if self.size_bytes is not None and self.size_bytes < 1:
            raise ValueError("size_bytes must be at least 1")
        if self.backing and self.format is not ImageFormat.QCOW2:
            raise ValueError("only a qcow2 image can be an overlay")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCopyRequest:
    """Copy an image: convert, clone, import and export are this.

    Attributes:
        format: of the target; None = by its name.
        compress: the target's clusters (qcow2 alone).
    """

    source: str
    target: str
    format: ImageFormat | None = None
    compress: bool = False
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        check_wait(self.wait_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedRequest:
    """Make a cloud-init seed image (NoCloud) from its documents."""

    path: str
    user_data: str
    meta_data: str = ""
    network_config: str = ""
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        check_wait(self.wait_s)
