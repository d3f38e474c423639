"""The locks below ours: QEMU's on images, and libvirt's by virtlockd or sanlock."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from protocol.errors import NovacronError
from services.vm.leases.errors import DiskLockedError

QEMU_CONF = Path("/etc/libvirt/qemu.conf")
_BYTES_MAX = 1 << 20
_LOCKED = (
    re.compile(r"Failed to get (?:shared )?\"[a-z ]+\" lock"),
    re.compile(r"Is another process using the image"),
    re.compile(r"Lockspace resource .* is locked"),
    re.compile(r"Failed to acquire lock"),
)
_IMAGE = re.compile(r"Is another process using the image \[([^\]]+)\]")
_SETTING = re.compile(r"^\s*lock_manager\s*=\s*\"([a-z]+)\"\s*(?:#.*)?$", re.MULTILINE)


def translate_lock(error: NovacronError, name: str) -> DiskLockedError | None:
    """The error for a disk that another program has locked; None for any other."""
    if not any(pattern.search(error.message) for pattern in _LOCKED):
        return None
    found = _IMAGE.search(error.message)
    which = found[1] if found else "one of its disks"
    return DiskLockedError(
        f"{name} was not started: another program has {which} open and locked, such as a guest "
        f"that was started past the platform, a guest of another host, or qemu-img. Find it with "
        f"'fuser -v FILE' on each host that reaches the file, end it, and start again",
        path=found[1] if found else "",
    )


def libvirt_lock(uri: str, conf: Path = QEMU_CONF) -> str:
    """The lock manager of a local QEMU driver, such as ``lockd``; "" for none that is known of."""
    parts = urlsplit(uri)
    is_local = parts.scheme.split("+")[0] == "qemu" and not parts.hostname
    if not is_local:
        return ""
    try:
        with conf.open("rb") as file:
            text = file.read(_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""
    found = _SETTING.findall(text)
    return found[-1] if found else ""
