"""Gather the facts for preflight from the running host.

All of it together takes a few milliseconds: files of /proc and /sys, one bind per port, no other
program. Who holds a used port is looked for only where one is used.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import resource
import socket
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from services.node.facts import (
    POSTGRES,
    REDIS,
    AccountFacts,
    DirectoryFacts,
    HostFacts,
    NodeFacts,
    PortFacts,
    PortState,
)

CAP_NET_ADMIN = 12
# cgroup v1 says "no limit" as the largest multiple of a page; v2 says "max".
_NO_LIMIT = 1 << 62
_CGROUP_DEPTH_MAX = 32
# /proc/net/tcp lists listening sockets first, 150 bytes each.
_SOCKETS_BYTES_MAX = 4 << 20
_HOLDER_SEARCH_S = 0.25
_LISTEN = "0A"
_WILDCARDS = ("0" * 8, "0" * 32)
_PROGRAM_DIRS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_POSTGRES_DIR = Path("/usr/lib/postgresql")  # Debian's, with a directory per major version


def host_facts(root: Path = Path("/")) -> HostFacts:
    """Gather what needs no configuration.

    Args:
        root: where proc, sys and dev are.
    """
    kvm = root / "dev/kvm"
    status = _fields(root / "proc/self/status")
    meminfo = _fields(root / "proc/meminfo")
    groups = _control_groups(root)
    available = meminfo.get("MemAvailable", "").split()
    return HostFacts(
        python=sys.version_info[:3],
        memory_available_bytes=int(available[0]) * 1024 if available else None,
        memory_limit_bytes=_lowest(groups, ("memory.max", "memory.limit_in_bytes")),
        processes_max=_lowest(groups, ("pids.max",)),
        open_files_max=_open_files_max(),
        has_kvm=kvm.exists(),
        may_open_kvm=_may_open(kvm),
        has_net_admin=bool(int(status.get("CapEff", "0"), 16) >> CAP_NET_ADMIN & 1),
        euid=os.geteuid(),
    )


def node_facts(
    *,
    state_dir: Path,
    log_dir: Path,
    ports: Mapping[str, tuple[str, int]],
    service_user: str,
    group: str,
    embedded: bool,
) -> NodeFacts:
    """Gather what the configuration asks for.

    Args:
        state_dir: absolute path; it need not exist.
        log_dir: the same.
        ports: host and port by configuration key, such as ``api.port``.
        service_user: account of the embedded servers where the node runs as root.
        group: of the people who may use the control socket.
        embedded: whether the node runs its own PostgreSQL and Redis.
    """
    return NodeFacts(
        euid=os.geteuid(),
        embedded=embedded,
        state=directory_facts(state_dir),
        logs=directory_facts(log_dir),
        ports=port_facts(ports),
        account=account_facts(service_user, group, state_dir),
        programs=_programs() if embedded else frozenset(),
    )


def directory_facts(path: Path) -> DirectoryFacts:
    """Look at a directory, or at the nearest one above it that exists."""
    existing = path
    # A symbolic link to nowhere is in the way, not absent.
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    try:
        found = os.statvfs(existing)
        free_bytes, is_read_only = (
            found.f_bavail * found.f_frsize,
            bool(found.f_flag & os.ST_RDONLY),
        )
    except OSError:
        free_bytes, is_read_only = None, False
    return DirectoryFacts(
        path=str(path),
        existing=str(existing),
        is_directory=existing.is_dir(),
        is_writable=os.access(existing, os.W_OK | os.X_OK, effective_ids=True),
        is_read_only=is_read_only,
        free_bytes=free_bytes,
    )


def port_facts(ports: Mapping[str, tuple[str, int]]) -> tuple[PortFacts, ...]:
    """Try every address, and look for who holds those that are used."""
    states = {key: _port_state(host, port) for key, (host, port) in ports.items()}
    inodes = {
        key: _listeners(*ports[key]) for key, state in states.items() if state is PortState.USED
    }
    holders = _holders({inode for found in inodes.values() for inode in found})
    facts = []
    for key, (host, port) in ports.items():
        held = (holders[inode] for inode in inodes.get(key, ()) if inode in holders)
        pid, name = min(held, default=(None, ""))
        facts.append(
            PortFacts(
                key=key, host=host, port=port, state=states[key], holder_pid=pid, holder_name=name
            )
        )
    return tuple(facts)


def account_facts(user: str, group: str, state: Path) -> AccountFacts:
    """Look the accounts up, and whether the user gets as far as the state directory."""
    try:
        group_id: int | None = grp.getgrnam(group).gr_gid
    except KeyError:
        group_id = None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return AccountFacts(
            user=user, group=group, user_id=None, has_group=group_id is not None, is_member=False
        )
    groups = frozenset(os.getgrouplist(user, entry.pw_gid))
    return AccountFacts(
        user=user,
        group=group,
        user_id=entry.pw_uid,
        has_group=group_id is not None,
        is_member=group_id in groups,
        is_primary=group_id == entry.pw_gid,
        blocked_at=_blocked_at(state, entry.pw_uid, groups),
    )


def _fields(file: Path) -> dict[str, str]:
    """The lines of a file in the form ``Name: value``."""
    lines = (line.partition(":") for line in _text(file).splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}


def _text(file: Path, bytes_max: int = 1 << 20) -> str:
    """A file's text as far as ``bytes_max``, or nothing where it can't be read."""
    try:
        with file.open("rb") as opened:
            return opened.read(bytes_max).decode(errors="replace")
    except OSError:
        return ""


def _control_groups(root: Path) -> list[Path]:
    """Directories of the control groups of this process and of those above them.

    In a container the kernel may name a path that only the host has; what exists of it counts,
    the container's own root at least.
    """
    mount = root / "sys/fs/cgroup"
    found: dict[Path, None] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            bases = [mount, mount / "unified"]
        elif {"memory", "pids"} & set(controllers.split(",")):
            bases = [mount / controllers]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")][:_CGROUP_DEPTH_MAX]
        for base in bases:
            found.update((base.joinpath(*parts[:depth]), None) for depth in range(len(parts) + 1))
    return list(found)


def _lowest(groups: Iterable[Path], names: tuple[str, ...]) -> int | None:
    """The lowest limit in files of these names; None where there is no limit."""
    texts = (_text(group / name, 64).strip() for group in groups for name in names)
    limits = [int(text) for text in texts if text.isdecimal() and int(text) < _NO_LIMIT]
    return min(limits, default=None)


def _open_files_max() -> int:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _may_open(device: Path) -> bool:
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    os.close(descriptor)
    return True


def _port_state(host: str, port: int) -> PortState:
    """Bind as a server does; nothing ever listens."""
    if port == 0:
        return PortState.FREE  # the kernel chooses
    family, address = _address(host)
    if not address:
        return PortState.UNKNOWN
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((address, port))
        except OSError as exc:
            states = {
                errno.EADDRINUSE: PortState.USED,
                errno.EACCES: PortState.DENIED,
                errno.EADDRNOTAVAIL: PortState.NO_ADDRESS,
            }
            return states.get(exc.errno or 0, PortState.UNKNOWN)
    return PortState.FREE


def _address(host: str) -> tuple[socket.AddressFamily, str]:
    """The family and numeric form of a host; no resolver is asked, which could take seconds."""
    text = "127.0.0.1" if host == "localhost" else host.strip("[]")
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, text)
            return family, text
    return socket.AF_INET, ""


def _listeners(host: str, port: int) -> list[str]:
    """Inodes of the sockets that listen where ``host`` and ``port`` would."""
    family, address = _address(host)
    own = _table_form(socket.inet_pton(family, address))
    mapped = _table_form(b"\0" * 10 + b"\xff\xff") + own  # of an IPv6 socket that takes IPv4 too
    inodes = []
    for table in ("tcp", "tcp6"):
        for line in _text(Path("/proc/net") / table, _SOCKETS_BYTES_MAX).splitlines()[1:]:
            words = line.split()
            if len(words) < 10 or words[3] != _LISTEN:
                continue
            local, _, number = words[1].rpartition(":")
            if int(number, 16) != port:
                continue
            if own in _WILDCARDS or local in (own, mapped, *_WILDCARDS):
                inodes.append(words[9])
    return inodes


def _table_form(packed: bytes) -> str:
    """An address as /proc/net/tcp writes it: words of 32 bits, each in the host's byte order."""
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def _holders(inodes: set[str]) -> dict[str, tuple[int, str]]:
    """The process with the lowest id that has each socket open, as far as we may look."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, tuple[int, str]] = {}
    give_up_s = time.monotonic() + _HOLDER_SEARCH_S
    for pid in _pids() if wanted else ():
        if len(found) == len(wanted) or time.monotonic() > give_up_s:
            break
        for inode in _sockets_of(pid, wanted):
            found.setdefault(inode, (pid, _text(Path(f"/proc/{pid}/comm"), 64).strip()))
    return found


def _pids() -> list[int]:
    with os.scandir("/proc") as entries:
        return sorted(int(entry.name) for entry in entries if entry.name.isdecimal())


def _sockets_of(pid: int, wanted: Mapping[str, str]) -> Iterator[str]:
    # A process may have ended, or not be ours to look at.
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if inode := wanted.get(os.readlink(entry.path)):  # noqa: PTH115 - thousands of them
                    yield inode


def _blocked_at(state: Path, uid: int, groups: frozenset[int]) -> str:
    """The first directory above ``state`` that a user can't enter; "" for none.

    The state directory itself is made so that everybody can pass it.
    """
    for directory in reversed(Path(os.path.realpath(state)).parents):
        try:
            found = directory.stat()
        except OSError:
            return ""  # it is made later, open to all
        bit = stat.S_IXOTH
        if found.st_uid == uid:
            bit = stat.S_IXUSR
        elif found.st_gid in groups:
            bit = stat.S_IXGRP
        if not found.st_mode & bit and not _has_acl(directory):
            return str(directory)
    return ""


def _has_acl(directory: Path) -> bool:
    """Whether an access control list says more than the mode does."""
    try:
        return bool(os.getxattr(directory, "system.posix_acl_access"))
    except OSError:
        return False


def _programs() -> frozenset[str]:
    found = set()
    if any(_POSTGRES_DIR.glob("*/bin/postgres")) or _is_on_path(POSTGRES):
        found.add(POSTGRES)
    if _is_on_path(REDIS):
        found.add(REDIS)
    return frozenset(found)


def _is_on_path(program: str) -> bool:
    path = f"{os.environ.get('PATH', '')}:{_PROGRAM_DIRS}".split(":")
    return any(os.access(f"{directory}/{program}", os.X_OK) for directory in path if directory)
