"""The facts that preflight judges."""

from __future__ import annotations

import enum
from dataclasses import dataclass

POSTGRES = "postgres"
REDIS = "redis-server"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The host as the node's first process sees it; None where the kernel does not say.

    Attributes:
        python: major, minor and micro version of the interpreter.
        memory_available_bytes: MemAvailable.
        memory_limit_bytes: of the cgroup or any above it; None for no limit.
        processes_max: pids limit of the cgroup or any above it; None for no limit.
        open_files_max: the soft RLIMIT_NOFILE.
        has_kvm, may_open_kvm: /dev/kvm exists; this user may use it.
        has_net_admin: CAP_NET_ADMIN is in the effective set.
        euid: effective user id.
    """

    python: tuple[int, int, int]
    memory_available_bytes: int | None
    memory_limit_bytes: int | None
    processes_max: int | None
    open_files_max: int
    has_kvm: bool
    may_open_kvm: bool
    has_net_admin: bool
    euid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryFacts:
    """A directory that the node writes to, or the nearest one above it that exists.

    Attributes:
        path: of the directory.
        existing: ``path``, or what exists of it.
        is_directory, is_writable, is_read_only: of ``existing``; read-only by its mount.
        free_bytes: for an unprivileged user on its filesystem; None if not known.
    """

    path: str
    existing: str
    is_directory: bool
    is_writable: bool
    is_read_only: bool
    free_bytes: int | None


class PortState(enum.Enum):
    """What came of binding to an address."""

    FREE = "free"
    USED = "used"
    DENIED = "denied"
    NO_ADDRESS = "no_address"
    UNKNOWN = "unknown"  # a name that only a resolver knows; the service finds out


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFacts:
    """A configured port: its key, its address, its state, and who holds it where that is known."""

    key: str
    host: str
    port: int
    state: PortState
    holder_pid: int | None = None
    holder_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFacts:
    """The configured accounts.

    Attributes:
        user, group: names.
        user_id: None if there is no such user.
        has_group: the group exists.
        is_member: the user is in the group.
        is_primary: the group is the user's own one, which it can't just leave.
        blocked_at: the first directory above the state directory that the user can't enter.
    """

    user: str
    group: str
    user_id: int | None
    has_group: bool
    is_member: bool
    is_primary: bool = False
    blocked_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the configuration asks for, as it is on the host.

    Attributes:
        euid: effective user id.
        embedded: the node runs its own PostgreSQL and Redis.
        state, logs: directories.
        ports: all that the node listens on.
        account: user and group.
        programs: which of ``postgres`` and ``redis-server`` are installed.
    """

    euid: int
    embedded: bool
    state: DirectoryFacts
    logs: DirectoryFacts
    ports: tuple[PortFacts, ...]
    account: AccountFacts
    programs: frozenset[str]
