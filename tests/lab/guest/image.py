"""Builds the guest's initial file system: busybox, a few modules, and the program that ticks."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.compiler import build_program
from tests.lab.guest.packages import Parts, cache_dir, find_parts

_HERE = Path(__file__).parent
# In the order in which they need each other.
_MODULES = (
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A kernel and the initial file system that goes with it."""

    kernel: Path
    initrd: Path


def build_image() -> Image:
    """The image, from the cache where its sources have not changed.

    Raises:
        LabError: something is missing to build it.
    """
    parts = find_parts()
    program = build_program(_HERE / "guest.c", flags=("-static",))
    digest = hashlib.sha256()
    for source in (Path(__file__), _HERE / "init", program):
        digest.update(source.read_bytes())
    digest.update(str(parts.kernel.name).encode())
    initrd = cache_dir() / f"initrd-{digest.hexdigest()[:16]}.gz"
    if not initrd.exists():
        packed = gzip.compress(_archive(parts, program), compresslevel=6, mtime=0)
        fresh = initrd.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(packed)
        fresh.replace(initrd)
    return Image(kernel=parts.kernel, initrd=initrd)


def _archive(parts: Parts, program: Path) -> bytes:
    """A cpio archive in the format that the kernel unpacks.

    Source: Documentation/driver-api/early-userspace/buffer-format.rst, "newc".
    """
    return b"".join(
        _entry(number, *item) for number, item in enumerate(_files(parts, program), 1)
    ) + _entry(0, "TRAILER!!!", 0, b"")


def _files(parts: Parts, program: Path) -> Iterator[tuple[str, int, bytes]]:
    for name in ("bin", "dev", "proc", "modules"):
        yield name, stat.S_IFDIR | 0o755, b""
    yield "bin/busybox", stat.S_IFREG | 0o755, parts.busybox.read_bytes()
    yield "bin/sh", stat.S_IFLNK | 0o777, b"busybox"
    yield "bin/guest", stat.S_IFREG | 0o755, program.read_bytes()
    yield "init", stat.S_IFREG | 0o755, (_HERE / "init").read_bytes()
    yield "modules/order", stat.S_IFREG | 0o644, "\n".join(map(_base, _MODULES)).encode()
    for name in _MODULES:
        yield f"modules/{_base(name)}", stat.S_IFREG | 0o644, (parts.modules / name).read_bytes()


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _entry(number: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + encoded) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
