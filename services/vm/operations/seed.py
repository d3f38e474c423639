"""A cloud-init seed: an ISO 9660 image with the volume name ``cidata`` and up to three files. Pure.

It is written here, as three small files in one directory need two hundred lines of format and no
dependency. The names have Joliet records, as ``user-data`` is no name of plain ISO 9660; without
them Linux would still show ``user-data`` for ``USER-DATA``.

Source: ECMA-119 (ISO 9660), sections 6.8, 6.9, 8.4, 9.1, 9.4; the Joliet specification, 1995;
cloud-init's NoCloud data source.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

SECTOR_BYTES = 2048
VOLUME = "cidata"
# cloud-init's user data is bounded to 16 KiB by most clouds; a message to the node to a mebibyte.
FILE_BYTES_MAX = 512 << 10
_FIRST_DESCRIPTOR = 16
_JOLIET_LEVEL_3 = b"%/E"
_ROOT, _PARENT = b"\0", b"\1"
_NO_DATE = b"0" * 16 + b"\0"


@dataclass(frozen=True, slots=True)
class _Tree:
    """Where one of the two directories and its path tables lie."""

    directory: int
    little: int
    big: int


# After the three descriptors: path tables and directory of each tree, then the files.
_PLAIN = _Tree(directory=21, little=19, big=20)
_JOLIET = _Tree(directory=24, little=22, big=23)
_FIRST_FILE = 25


def seed_files(user_data: str, meta_data: str, network_config: str) -> dict[str, bytes]:
    """The files of a seed; an empty network configuration is left out.

    Raises:
        ValueError: the user data is nothing that cloud-init would take, or a file is too large.
    """
    first = user_data.lstrip().partition("\n")[0]
    if not user_data.startswith(("#", "Content-Type:", "MIME-Version:", "From ")):
        raise ValueError(
            "user-data must begin with #cloud-config, #! or a MIME head; it begins with "
            f"{first!r:.40}"
        )
    files = {"meta-data": meta_data.encode(), "user-data": user_data.encode()}
    if network_config:
        files["network-config"] = network_config.encode()
    for name, data in files.items():
        if len(data) > FILE_BYTES_MAX:
            raise ValueError(f"{name} takes {len(data)} bytes; at most {FILE_BYTES_MAX} are taken")
    return files


def iso_image(files: Mapping[str, bytes]) -> bytes:
    """The image; the same files give the same bytes.

    Args:
        files: by name, of letters, digits, dots and hyphens; few enough for one sector of records.
    """
    places: dict[str, tuple[int, bytes]] = {}
    sector = _FIRST_FILE
    for name in sorted(files):
        places[name] = sector, files[name]
        sector += max(-(-len(files[name]) // SECTOR_BYTES), 1)
    parts = [
        b"\0" * SECTOR_BYTES * _FIRST_DESCRIPTOR,
        _descriptor(1, _PLAIN, sector),
        _descriptor(2, _JOLIET, sector),
        _sector(b"\xffCD001\x01"),
    ]
    for tree, encode in ((_PLAIN, _plain_name), (_JOLIET, _joliet_name)):
        table = tree.directory
        parts.append(_sector(struct.pack("<BBIH", 1, 0, table, 1) + b"\0\0"))
        parts.append(_sector(struct.pack(">BBIH", 1, 0, table, 1) + b"\0\0"))
        records = [_record(_ROOT, table, SECTOR_BYTES, is_directory=True)]
        records.append(_record(_PARENT, table, SECTOR_BYTES, is_directory=True))
        for name, (place, data) in places.items():
            records.append(_record(encode(name), place, len(data), is_directory=False))
        parts.append(_sector(b"".join(records)))
    for _, data in places.values():
        length = max(-(-len(data) // SECTOR_BYTES), 1) * SECTOR_BYTES
        parts.append(data.ljust(length, b"\0"))
    return b"".join(parts)


def _descriptor(kind: int, tree: _Tree, sectors: int) -> bytes:
    is_joliet = tree is _JOLIET

    def text(value: str, length: int) -> bytes:
        if is_joliet:
            padded = value.encode("utf-16-be")[: length // 2 * 2]
            filled = padded + b"\0 " * ((length - len(padded)) // 2)
            return filled.ljust(length, b"\0")
        return value.encode("ascii").ljust(length)

    body = struct.pack("B5sBB", kind, b"CD001", 1, 0)
    body += text("LINUX", 32) + text(VOLUME, 32) + b"\0" * 8 + _both32(sectors)
    body += (_JOLIET_LEVEL_3 if is_joliet else b"").ljust(32, b"\0")
    body += _both16(1) + _both16(1) + _both16(SECTOR_BYTES) + _both32(10)
    body += struct.pack("<II", tree.little, 0) + struct.pack(">II", tree.big, 0)
    body += _record(_ROOT, tree.directory, SECTOR_BYTES, is_directory=True)
    body += text("", 128) + text("", 128) + text("", 128) + text("NOVACRON", 128)
    body += text("", 37) + text("", 37) + text("", 37)
    body += _NO_DATE * 4 + b"\x01\0"
    return _sector(body)


def _record(name: bytes, place: int, length: int, *, is_directory: bool) -> bytes:
    size = 33 + len(name) + (1 - len(name) % 2)
    body = struct.pack("BB", size, 0) + _both32(place) + _both32(length)
    body += b"\0" * 7 + struct.pack("BBB", 2 if is_directory else 0, 0, 0) + _both16(1)
    return (body + struct.pack("B", len(name)) + name).ljust(size, b"\0")


def _plain_name(name: str) -> bytes:
    return (name.upper() + ";1").encode("ascii")


def _joliet_name(name: str) -> bytes:
    return name.encode("utf-16-be")


def _both16(value: int) -> bytes:
    return struct.pack("<H", value) + struct.pack(">H", value)


def _both32(value: int) -> bytes:
    return struct.pack("<I", value) + struct.pack(">I", value)


def _sector(body: bytes) -> bytes:
    assert len(body) <= SECTOR_BYTES
    return body.ljust(SECTOR_BYTES, b"\0")
