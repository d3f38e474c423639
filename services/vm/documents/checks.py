"""Checks that the parts of a document share, and sizes as texts."""

from __future__ import annotations

import re

MEMORY_BYTES_MIN = 1 << 20
MEMORY_BYTES_MAX = 16 << 40
PATH_BYTES_MAX = 1024
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(r"([1-9][0-9]{0,10})(KiB|MiB|GiB|TiB)")
_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


def parse_size(text: str, name: str) -> int:
    """Bytes of ``512MiB``.

    Raises:
        ValueError: it is none, or out of range.
    """
    found = _SIZE.fullmatch(text)
    size = int(found[1]) * _UNITS[found[2]] if found is not None else 0
    if not MEMORY_BYTES_MIN <= size <= MEMORY_BYTES_MAX:
        raise ValueError(f"{name} is {text!r:.60}; expected 1MiB to 16TiB, such as 512MiB or 2GiB")
    return size


def size_text(size_bytes: int) -> str:
    """The size in the largest unit that it is a whole number of; rounded up to KiB."""
    size_kib = -(-size_bytes // 1024)
    for unit in ("TiB", "GiB", "MiB"):
        if size_kib and size_kib % (_UNITS[unit] >> 10) == 0:
            return f"{size_kib // (_UNITS[unit] >> 10)}{unit}"
    return f"{size_kib}KiB"


def check_range(name: str, value: int, least: int, most: int) -> None:
    """Raise ValueError unless the value lies in the range."""
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}; expected {least} to {most}")


def check_path(name: str, path: str) -> None:
    """Raise ValueError unless it is a plain absolute path."""
    parts = path.split("/")
    is_plain = path.startswith("/") and path.isprintable() and ".." not in parts
    if not is_plain or path.endswith("/") or len(path.encode()) > PATH_BYTES_MAX:
        raise ValueError(
            f"{name} is {path!r:.60}; expected an absolute path without '..', at most "
            f"{PATH_BYTES_MAX} bytes long"
        )


def check_cpu_set(text: str) -> None:
    """Raise ValueError unless it names processors as ``0-3,8``."""
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        if found is None or int(found[2] or found[1]) < int(found[1]):
            raise ValueError(f"pinning has {text!r:.60}; expected processors such as 0-3,8")
