"""Where a network's dnsmasq has its files, and whose they are."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from services.network.serving.errors import DnsmasqMissingError, ServingStateError

PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
# Debian's package makes the first one; the other is everywhere.
_ACCOUNTS = ("dnsmasq", "nobody")
# Others pass through, to files of their own, and can't list.
_PASSED = 0o711
_OWN = 0o750


@dataclass(frozen=True, slots=True)
class Account:
    """Whom dnsmasq runs as."""

    uid: int
    gid: int


def base(state_dir: Path) -> Path:
    """The directory of everything that is served."""
    return state_dir / "network" / "serving"


def config_file(state_dir: Path, network: str) -> Path:
    """The configuration of a network's dnsmasq."""
    return base(state_dir) / network / "dnsmasq.conf"


def lease_file(state_dir: Path, network: str) -> Path:
    """What it gave out; it writes this itself."""
    return base(state_dir) / network / "leases"


def pid_file(state_dir: Path, network: str) -> Path:
    """The number of the process that became a network's dnsmasq last."""
    return base(state_dir) / network / "pid"


def end_left_over(state_dir: Path, network: str) -> None:
    """Kill a network's dnsmasq that its launcher did not take along.

    That is one that was being started in the moment in which the launcher was killed. The number
    may be somebody else's by now, also that of a process in a container with the same paths: its
    arguments and its root directory tell.
    """
    argument = arguments(config_file(state_dir, network), lease_file(state_dir, network))[0]
    try:
        pid = int(pid_file(state_dir, network).read_text())
        process = Path("/proc", str(pid))
        words = process.joinpath("cmdline").read_bytes().decode(errors="replace").split("\0")
        is_here = process.joinpath("root").samefile("/")
    except (OSError, ValueError):
        return  # there is none
    if pid != os.getpid() and argument in words and is_here:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def account() -> Account:
    """Whom dnsmasq runs as: the node's own account, where that is not root's.

    Raises:
        DnsmasqMissingError: the host has no account for it.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    for name in _ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise DnsmasqMissingError(f"there is no account {' or '.join(_ACCOUNTS)} for dnsmasq")


def program(name: str = "dnsmasq") -> str:
    """The path of a program.

    Raises:
        DnsmasqMissingError: there is none.
    """
    found = shutil.which(name, path=PATH)
    if found is None:
        package = "dnsmasq-base" if name == "dnsmasq" else "util-linux"
        raise DnsmasqMissingError(
            f"there is no program {name} on this host: install the package {package}"
        )
    return found


def arguments(config: Path, leases: Path) -> tuple[str, ...]:
    """Dnsmasq's arguments, for a test of a file and to run with it.

    Paths are arguments and not lines of the file, which has no way to quote. No file of a process
    id: it would be in one place for all of them.
    """
    return (f"--conf-file={config}", f"--dhcp-leasefile={leases}", "--pid-file=")


def make_base(state_dir: Path) -> None:
    """Make the directory of everything that is served, which others pass through.

    Raises:
        ServingStateError: it can't be made.
    """
    for directory in (state_dir / "network", base(state_dir)):
        try:
            directory.mkdir(mode=_PASSED, exist_ok=True)
            if directory.stat().st_mode & 0o777 != _PASSED:
                directory.chmod(_PASSED)
        except OSError as exc:
            raise ServingStateError(
                f"can't make {directory}: {exc.strerror}", file=str(directory)
            ) from exc


def make_directory(state_dir: Path, network: str) -> Path:
    """Make a network's directory and its file of leases, as its dnsmasq needs them.

    Raises:
        DnsmasqMissingError: see ``account``.
        ServingStateError: it can't be made.
    """
    who = account()
    target = base(state_dir) / network
    leases = lease_file(state_dir, network)
    make_base(state_dir)
    try:
        target.mkdir(mode=_OWN, exist_ok=True)
        os.chown(target, -1, who.gid)
        target.chmod(_OWN)
        descriptor = os.open(leases, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            os.fchown(descriptor, who.uid, who.gid)
            os.fchmod(descriptor, 0o640)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise ServingStateError(f"can't make {target}: {exc.strerror}", file=str(target)) from exc
    return target
