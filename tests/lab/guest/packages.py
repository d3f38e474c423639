"""The kernel and busybox that guests are made of: fetched from Debian once, kept in a cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import LabError, require

KERNEL = "linux-image-cloud-amd64"
BUSYBOX = "busybox-static"
_FETCH_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a guest is made of.

    Attributes:
        kernel: the bootable image.
        modules: root of its modules, the directory named ``kernel``.
        busybox: a program without shared libraries.
    """

    kernel: Path
    modules: Path
    busybox: Path


def cache_dir() -> Path:
    """Where fetched packages and built images stay; outside of the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "novacron-lab"


def find_parts() -> Parts:
    """The parts from the cache, or fetched with apt and put there.

    Raises:
        LabError: they are not there and can't be fetched; the message has what apt said.
    """
    directory = cache_dir() / "packages"
    if not directory.is_dir():
        _fetch_into(directory)
    kernel = next(directory.glob("boot/vmlinuz-*"))
    modules = next(directory.glob("lib/modules/*/kernel"))
    return Parts(kernel=kernel, modules=modules, busybox=directory / "bin/busybox")


def _fetch_into(directory: Path) -> None:
    require("apt-get", package="apt")
    require("dpkg-deb", package="dpkg")
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="fetch-", dir=directory.parent))
    try:
        # apt's own account, which downloads for it, has no way into root's home.
        depends = _run("apt-cache", "depends", "--important", KERNEL, cwd=work)
        names = re.findall(r"Depends: (linux-image-\S+)", depends)
        if not names:
            raise LabError(f"apt knows no package {KERNEL}: run 'apt-get update' and try again")
        _run(
            "apt-get",
            "-q",
            "-o",
            "APT::Sandbox::User=root",
            "download",
            names[0],
            BUSYBOX,
            cwd=work,
        )
        out = work / "out"
        for package in work.glob("*.deb"):
            _run("dpkg-deb", "-x", str(package), str(out), cwd=work)
        try:
            out.rename(directory)
        except OSError:  # Somebody else was faster; theirs is as good.
            if not directory.is_dir():
                raise
    finally:
        shutil.rmtree(work)


def _run(*argv: str, cwd: Path) -> str:
    done = subprocess.run(
        argv, cwd=cwd, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-500:]
        hint = ": run 'apt-get update' and try again" if argv[0].startswith("apt") else ""
        raise LabError(f"{' '.join(argv)} failed: {said}{hint}")
    return done.stdout
