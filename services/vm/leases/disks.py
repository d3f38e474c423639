"""What of the host's storage a domain uses, by its XML, and how. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from services.vm.leases.model import DiskMode

_READ_ONLY_DEVICES = frozenset(("cdrom",))


class SourceKind(enum.Enum):
    """How a source is named."""

    FILE = "file"  # or a block device: what is at the path decides
    VOLUME = "volume"  # of a pool; libvirt knows its path
    NETWORK = "network"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSource:
    """A disk of a domain.

    Attributes:
        place: a path; a pool and a volume with a slash between; or protocol, hosts and name.
    """

    kind: SourceKind
    place: str
    mode: DiskMode


def disk_sources(domain_xml: str) -> tuple[DiskSource, ...]:
    """The disks of a domain, and the file of its firmware's variables; empty drives are none."""
    root = ET.fromstring(domain_xml)  # noqa: S314 - libvirt's answer
    found = [source for disk in root.iterfind("devices/disk") for source in _source(disk)]
    variables = root.find("os/nvram")
    if variables is not None:
        inner = variables.find("source")
        path = inner.get("file", "") if inner is not None else variables.text or ""
        if path.strip():
            place = path.strip()
            found.append(DiskSource(kind=SourceKind.FILE, place=place, mode=DiskMode.WRITE))
    return tuple(found)


def _source(disk: ET.Element) -> tuple[DiskSource, ...]:
    source = disk.find("source")
    if source is None:
        return ()
    given = source.attrib
    kind = SourceKind.FILE
    place = given.get("file") or given.get("dev") or ""
    if given.get("pool") and given.get("volume"):
        kind, place = SourceKind.VOLUME, f"{given['pool']}/{given['volume']}"
    elif disk.get("type") == "network":
        hosts = sorted(
            f"{host.get('name', '')}:{host.get('port', '')}" for host in source.iterfind("host")
        )
        kind = SourceKind.NETWORK
        place = f"{given.get('protocol', '')}:{','.join(hosts)}:{given.get('name', '')}"
    return (DiskSource(kind=kind, place=place, mode=_mode(disk)),) if place else ()


def _mode(disk: ET.Element) -> DiskMode:
    if disk.find("readonly") is not None or disk.get("device") in _READ_ONLY_DEVICES:
        return DiskMode.READ
    return DiskMode.SHARED if disk.find("shareable") is not None else DiskMode.WRITE
