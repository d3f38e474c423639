"""Control groups, version 2, where a part of the hierarchy is delegated to the tree.

A supervisor that has to limit a group of processes needs a directory of its own below its base::

    <base>                 the delegated group; holds no process, or it could hand on no controller
    <base>/_self           the root, the launcher and every child without limits of its own
    <base>/core.vm         a child with limits, and all that it starts
    <base>/core.dwcp/_self a nested supervisor with limits; the groups of its children are beside

A base is ours where somebody said so: systemd by its mark (``Delegate=yes``), a container by a
hierarchy of its own, an administrator by giving the directory to our account. Everything else
belongs to whoever manages the host, however writable it is.

Source: the kernel's cgroup-v2 document; systemd's CGROUP_DELEGATION.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from protocol import names
from protocol.dataclass import dataclass
from protocol.errors import NovacronError
from supervisor.core.resources import CgroupLimits

# No process of a tree is called so.
SELF = "_self"
_MARKS = ("trusted.delegate", "user.delegate")
# Processes that start while the others are moved out of the base are moved in the next round.
_ROUNDS_MAX = 20
_REMOVE_TIMEOUT_S = 1.0
_REMOVE_PAUSE_S = 0.005


class NotDelegatedError(NovacronError):
    """No part of the hierarchy is ours; the message is the reason."""

    code = "supervisor.cgroup_not_delegated"
    expected = True


@dataclass(frozen=True, slots=True)
class MemoryEvents:
    """How often memory was a reason for the kernel to act on a group.

    Attributes:
        high: times it was slowed down at memory.high.
        oom: times it was at memory.max and nothing could be reclaimed.
        oom_kill: processes that were killed for it.
    """

    high: int = 0
    oom: int = 0
    oom_kill: int = 0


@dataclass(frozen=True, slots=True)
class Created:
    """A group for a child.

    Attributes:
        directory: with the limits.
        entry: directory that the child's process is moved into.
        refused: limits that were not applied, a sentence each.
    """

    directory: Path
    entry: Path
    refused: tuple[str, ...] = ()


def own_group(mounts: str = "/proc/self/mountinfo", groups: str = "/proc/self/cgroup") -> Path:
    """The directory of this process's control group.

    Raises:
        NotDelegatedError: there is no cgroup v2, or its part with this process is not mounted.
    """
    inside = next(
        (line[3:] for line in Path(groups).read_text().splitlines() if line.startswith("0::")), None
    )
    for line in Path(mounts).read_text().splitlines():
        before, _, after = line.partition(" - ")
        if inside is None or after.split()[:1] != ["cgroup2"]:
            continue
        root, mount_point = before.split()[3:5]
        below = "/" if root == "/" else f"{root}/"
        if f"{inside}/".startswith(below):
            return Path(mount_point, f"{inside}/".removeprefix(below).strip("/"))
    raise NotDelegatedError("cgroup v2 is not mounted here")


def has_left_parent() -> bool:
    """Whether this process was moved into another group than its parent's."""
    try:
        own, parent = (
            Path(f"/proc/{pid}/cgroup").read_text().rpartition("0::")[2]
            for pid in ("self", os.getppid())
        )
    except OSError:
        return False
    return own != parent


def find_base() -> Path:
    """The delegated group that this process's supervisor may divide.

    Raises:
        NotDelegatedError: there is none.
    """
    own = own_group()
    base = own.parent if own.name == SELF else own
    if not os.access(base / "cgroup.procs", os.W_OK) or not os.access(base, os.W_OK):
        raise NotDelegatedError(f"{base} can't be written")
    if own.name != SELF and not _is_ours(base):
        raise NotDelegatedError(f"{base} is not delegated to this program")
    return base


def enter(directory: Path, pid: int = 0) -> None:
    """Move a process, with all its threads, into a group; 0 is this process.

    Raises:
        OSError: it may not be moved.
    """
    _write(directory / "cgroup.procs", str(pid))


def limit(directory: Path, limits: CgroupLimits) -> dict[str, str]:
    """Set the limits of a group; returns why a file could not be written, by its name."""
    refused: dict[str, str] = {}
    for name, value in limits.files().items():
        try:
            _write(directory / name, value)
        except OSError as exc:
            refused[name] = exc.strerror or str(exc)
    return refused


class Groups:
    """The groups below one supervisor's base.

    Args:
        base: see ``find_base``.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self._enabled: set[str] = set()

    def create(self, path: str, limits: CgroupLimits, *, is_supervisor: bool) -> Created:
        """Make a child's group; one that a lost predecessor left is emptied first.

        Args:
            path: of the child.
            limits: of the group.
            is_supervisor: it will divide its own group further.

        Raises:
            OSError: no group can be made.
        """
        directory = self.base / names.file_stem(path)
        with contextlib.suppress(FileNotFoundError):
            remove(directory)
        controllers = {name.partition(".")[0] for name in limits.files()}
        refused = self._enable(controllers)
        directory.mkdir()
        refused = limit(directory, limits) | refused
        entry = directory
        if is_supervisor:
            entry = directory / SELF
            entry.mkdir()
        sentences = []
        for name in limits.files():
            reason = refused.get(name.partition(".")[0]) or refused.get(name)
            sentences += [f"{name}: {reason}"] if reason else []
        return Created(directory, entry, tuple(sentences))

    def _enable(self, controllers: set[str]) -> dict[str, str]:
        """Hand controllers on to the groups below; returns why one can't be."""
        missing = controllers - self._enabled
        if not missing:
            return {}
        refused: dict[str, str] = {}
        available = _read(self.base / "cgroup.controllers").split()
        if missing & set(available):
            self._empty_base()
        for name in sorted(missing):
            if name not in available:
                refused[name] = f"controller {name} is not delegated"
                continue
            try:
                _write(self.base / "cgroup.subtree_control", f"+{name}")
            except OSError as exc:
                refused[name] = f"controller {name}: {exc.strerror}"
            else:
                self._enabled.add(name)
        return refused

    def _empty_base(self) -> None:
        """Move everybody out of the base: a group with processes can't hand on controllers.

        Everybody there is of our tree, since the base is delegated to it. The root of the whole
        hierarchy is another matter: there the rule does not hold, and the others are not ours.
        """
        if not (self.base / "cgroup.type").exists():
            return
        target = self.base / SELF
        target.mkdir(exist_ok=True)
        for _ in range(_ROUNDS_MAX):
            pids = _read(self.base / "cgroup.procs").split()
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    enter(target, int(pid))


def kill(directory: Path) -> None:
    """End everything in a group and below, also what has made itself a session of its own.

    Raises:
        OSError: there is no such group.
    """
    _write(directory / "cgroup.kill", "1")


def remove(directory: Path, timeout_s: float = _REMOVE_TIMEOUT_S) -> None:
    """End what is left in a group, and remove it with all that are below it.

    Raises:
        OSError: a process of it would not go within the time.
    """
    deadline_s = time.monotonic() + timeout_s
    if _is_populated(directory):
        kill(directory)
    while True:
        try:
            for below, _directories, _files in os.walk(directory, topdown=False):
                os.rmdir(below)  # noqa: PTH106 - a string is at hand
            return
        except OSError:
            if not directory.exists():
                return
            if time.monotonic() >= deadline_s:
                raise
        time.sleep(_REMOVE_PAUSE_S)


def memory_events(directory: Path) -> MemoryEvents:
    """What memory made the kernel do to a group; nothing where it has no memory controller."""
    try:
        text = _read(directory / "memory.events")
    except OSError:
        return MemoryEvents()
    counts = dict(line.split() for line in text.splitlines())
    fields = ("high", "oom", "oom_kill")
    return MemoryEvents(*(int(counts.get(name, 0)) for name in fields))


def memory_bytes(directory: Path) -> int | None:
    """What a group uses, without the cache of files that can be given back; None if unknown."""
    try:
        used = int(_read(directory / "memory.current"))
        swap = directory / "memory.swap.current"
        used += int(_read(swap)) if swap.exists() else 0
        lines = _read(directory / "memory.stat").splitlines()
    except OSError:
        return None
    files = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    return max(0, used - files)


def _is_ours(base: Path) -> bool:
    for mark in _MARKS:
        with contextlib.suppress(OSError):
            if os.getxattr(base, mark) == b"1":
                return True
    if not (base.parent / "cgroup.procs").exists():
        return True  # the top of what is mounted here: our container's, or the machine's
    return os.geteuid() != 0 and base.stat().st_uid == os.geteuid()


def _is_populated(directory: Path) -> bool:
    return "populated 1" in _read(directory / "cgroup.events")


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii")
