"""What a lab can fail with."""

from __future__ import annotations

import shutil

from protocol.errors import NovacronError


class LabError(NovacronError):
    """The lab can't do what was asked for; the message says what would help."""

    code = "lab.failed"


class MissingError(LabError):
    """This machine lacks something that the lab needs; the message names the package."""

    code = "lab.missing"


# Program -> the Debian package that has it.
PACKAGES = {
    "cc": "gcc",
    "ip": "iproute2",
    "libvirtd": "libvirt-daemon",
    "mount": "mount",
    "nsenter": "util-linux",
    "qemu-system-x86_64": "qemu-system-x86",
    "unshare": "util-linux",
    "virsh": "libvirt-clients",
}


def require(program: str, *, package: str = "") -> str:
    """The path of a program.

    Raises:
        MissingError: it is not installed.
    """
    found = shutil.which(program)
    if found is None:
        package = package or PACKAGES[program]
        raise MissingError(f"{program} is not installed: apt-get install {package}")
    return found
