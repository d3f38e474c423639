"""What a domain uses, and what a disk is whatever its path."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from services.vm.leases.disks import DiskSource, SourceKind, disk_sources
from services.vm.leases.errors import StorageMarkError
from services.vm.leases.identity import (
    MARK_FILE,
    Identifier,
    Mount,
    backing_file,
    chain,
    local_prefix,
    read_mounts,
)
from services.vm.leases.model import DiskMode, DiskUse

DOMAIN = """
<domain type='kvm'>
  <os><nvram>/var/lib/nvram/web.fd</nvram></os>
  <devices>
    <disk type='file' device='disk'><source file='/images/web.qcow2'/></disk>
    <disk type='block' device='disk'><source dev='/dev/vg/data'/><shareable/></disk>
    <disk type='file' device='disk'><source file='/images/base.iso'/><readonly/></disk>
    <disk type='file' device='cdrom'><source file='/images/cd.iso'/></disk>
    <disk type='file' device='cdrom'/>
    <disk type='volume' device='disk'><source pool='default' volume='a.img'/></disk>
    <disk type='network' device='disk'>
      <source protocol='rbd' name='pool/a'><host name='z' port='1'/><host name='b'/></source>
    </disk>
  </devices>
</domain>
"""
MOUNTS = """\
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
90 22 0:52 /vms /srv/vms rw shared:9 master:2 - nfs4 san:/export/my\\040vms rw,vers=4.2
91 22 0:53 / /mnt/x rw - fuse.sshfs host:/ rw
torn
"""


def overlay(path: Path, below: str, *, magic: bytes = b"QFI\xfb") -> Path:
    """The head of a qcow2 image above another one."""
    name = os.fsencode(below)
    path.write_bytes(struct.pack(">4sIQI", magic, 3, 512, len(name)).ljust(512, b"\0") + name)
    return path


def uses(*places: Path, mode: DiskMode = DiskMode.WRITE, node: str = "a") -> list[DiskUse]:
    """The keys of files."""
    sources = [DiskSource(kind=SourceKind.FILE, place=str(path), mode=mode) for path in places]
    return list(Identifier(node, lambda pool, volume: f"/{pool}/{volume}").uses(sources))


def keys(path: Path, node: str = "a") -> set[str]:
    """The keys of one file."""
    return {use.key for use in uses(path, node=node)}


def test_the_disks_of_a_domain_are_found_with_how_they_are_used() -> None:
    """Empty drives are none; the firmware's variables are written."""
    found = [
        (source.kind.value, source.place, source.mode.value) for source in disk_sources(DOMAIN)
    ]

    assert found == [
        ("file", "/images/web.qcow2", "write"),
        ("file", "/dev/vg/data", "shared"),
        ("file", "/images/base.iso", "read"),
        ("file", "/images/cd.iso", "read"),
        ("volume", "default/a.img", "write"),
        ("network", "rbd:b:,z:1:pool/a", "write"),
        ("file", "/var/lib/nvram/web.fd", "write"),
    ]


def test_links_lead_to_the_same_disk(tmp_path: Path) -> None:
    """Symbolic and hard ones, on one node; on another one the same number means another file."""
    image = tmp_path / "web.img"
    image.write_bytes(b"x")
    hard, soft = tmp_path / "hard.img", tmp_path / "soft.img"
    os.link(image, hard)
    soft.symlink_to(image)

    assert keys(image) == keys(hard) == keys(soft)
    assert len(keys(image)) == 1
    assert keys(image).isdisjoint(keys(image, node="b"))
    assert all(key.startswith(local_prefix("a")) for key in keys(image))


def test_marked_storage_is_the_same_on_all_nodes(tmp_path: Path) -> None:
    """By its name, with the inode and with the path below the mark; the nearest mark counts."""
    (tmp_path / MARK_FILE).write_text("far\n")
    inner = tmp_path / "vms"
    inner.mkdir()
    (inner / MARK_FILE).write_text("san-1\n")
    image = inner / "web.img"
    image.write_bytes(b"x")

    number = image.stat().st_ino
    shared = {f"shared:san-1:inode:{number}", "shared:san-1:path:web.img"}
    assert keys(image) & keys(image, node="b") == shared


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff\xfe", b"x" * 64, b"x" * 9999])
def test_a_mark_that_is_no_name_is_refused(tmp_path: Path, content: bytes) -> None:
    """Two nodes that read it in two ways would both write."""
    (tmp_path / MARK_FILE).write_bytes(content)
    (tmp_path / "web.img").write_bytes(b"x")
    with pytest.raises(StorageMarkError, match=MARK_FILE):
        keys(tmp_path / "web.img")


def test_network_file_systems_are_known_by_what_is_mounted(tmp_path: Path) -> None:
    """Escapes of the kernel's list are undone; other file systems are left out."""
    assert read_mounts(MOUNTS) == {"0:52": Mount("nfs4", "san:/export/my vms")}
    image = tmp_path / "web.img"
    image.write_bytes(b"x")
    status = image.stat()
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    table = tmp_path / "mountinfo"
    table.write_text(f"9 1 {device} / /mnt rw - nfs san:/vms rw\n")
    source = DiskSource(kind=SourceKind.FILE, place=str(image), mode=DiskMode.READ)
    found = Identifier("a", lambda _pool, _volume: "", table).uses([source])

    assert [use.key for use in found][1:] == [f"mount:nfs:san:/vms:{status.st_ino}"]


def test_what_an_image_is_an_overlay_of_is_read(tmp_path: Path) -> None:
    """Also below that, relative to each; an image that leads to itself ends there."""
    base = tmp_path / "base.img"
    base.write_bytes(b"x")
    middle = overlay(tmp_path / "middle.qcow2", "base.img")
    top = overlay(tmp_path / "top.qcow2", f"file:{middle}")
    loop = overlay(tmp_path / "loop.qcow2", "loop.qcow2")

    assert list(chain(str(top))) == [str(middle), str(base)]
    assert list(chain(str(loop))) == []
    found = [(Path(use.path).name, use.mode.value) for use in uses(top)]
    assert found == [("top.qcow2", "write"), ("middle.qcow2", "read"), ("base.img", "read")]


def test_what_is_no_overlay_of_a_file_has_none(tmp_path: Path) -> None:
    """Garbage, cut heads, other hosts, directories, pipes that nobody writes into."""
    (tmp_path / "short").write_bytes(b"QFI\xfb")
    os.mkfifo(tmp_path / "pipe")
    overlay(tmp_path / "other", "base", magic=b"KDMV")
    overlay(tmp_path / "nbd", "nbd://host/x")
    overlay(tmp_path / "json", 'json:{"driver":"nbd"}')
    overlay(tmp_path / "nul", "a\0b")
    far = struct.pack(">4sIQI", b"QFI\xfb", 3, (1 << 63) + 1, 4)
    (tmp_path / "far").write_bytes(far)
    for name in ("short", "pipe", "other", "nbd", "json", "nul", "far", "nothing", "."):
        assert backing_file(str(tmp_path / name)) == "", name


def test_volumes_networks_and_missing_files(tmp_path: Path) -> None:
    """A volume is its file; a network disk its name on all nodes; what is not there is nothing."""
    image = tmp_path / "a.img"
    image.write_bytes(b"x")
    volume = DiskSource(kind=SourceKind.VOLUME, place="pool/a.img", mode=DiskMode.WRITE)
    network = DiskSource(kind=SourceKind.NETWORK, place="rbd:h:p/a", mode=DiskMode.WRITE)
    found = Identifier("a", lambda _pool, _volume: str(image)).uses([volume, network])

    assert {use.key for use in found} == {*keys(image), "net:rbd:h:p/a"}
    assert uses(tmp_path / "nothing.img") == []


def test_a_path_that_can_not_be_looked_at_is_known_by_its_name(tmp_path: Path) -> None:
    """Rather than by nothing."""
    (tmp_path / "file").write_bytes(b"x")
    below = tmp_path / "file" / "below"

    assert keys(below) == {f"{local_prefix('a')}path:{below}"}


def test_names_of_any_bytes_and_length_become_text(tmp_path: Path) -> None:
    """An image names its backing file in bytes; what is stored is text of bounded length."""
    directory = tmp_path
    (tmp_path / MARK_FILE).write_text("san-1\n")
    for _ in range(8):
        directory = directory / ("d" * 200)
    directory.mkdir(parents=True)
    base = directory / os.fsdecode(b"\xff\xfe.img")
    base.write_bytes(b"x")
    top = overlay(directory / "top.qcow2", base.name)
    found = uses(top)

    assert [Path(use.path).name for use in found][-1] == "\\xff\\xfe.img"
    assert max(len(use.key.encode()) for use in found) <= 1000
    assert len({use.key for use in found}) == 6
