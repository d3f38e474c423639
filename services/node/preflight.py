"""What the node needs of its host: facts in, findings out.

``judge_host`` needs no configuration and belongs to phase 0; ``judge_node`` knows the
configuration. services.node.probes gathers the facts. A failed finding ends the start with exit
code 1; a warning names what will not work.

    finding          failed                                   warning
    interpreter      older than 3.11
    memory           less than 512 MiB available              not known
    memory-limit     the cgroup allows less than 512 MiB
    processes        the cgroup allows less than 64
    open-files                                                less than 1024
    kvm                                                       missing, or may not be opened
    network-admin                                             CAP_NET_ADMIN missing
    state-directory  read-only, not writable, no directory
    disk             less than 64 MiB free                    not known
    log-directory                                             read-only or not writable
    <key of a port>  used, not allowed, no such address
    service-user     missing, root, or can't reach the state  in the operators' group
    group                                                     missing
    postgres         not installed
    redis-server                                              not installed

The last four but ``group`` are asked only where the node runs its own servers, and the accounts
only where it runs as root.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from services.node.errors import PreflightError
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

__all__ = (
    "Finding",
    "HostFacts",
    "NodeFacts",
    "Outcome",
    "judge_host",
    "judge_node",
    "require",
)

MIB = 1 << 20
PYTHON_MIN = (3, 11)
# The tree takes up to 250 MiB, embedded servers 150 MiB; the rest is for a burst of work.
MEMORY_BYTES_MIN = 512 * MIB
# The tree has about 15 processes, embedded PostgreSQL up to 50 more with all its connections.
PROCESSES_MIN = 64
# A transfer alone may hold 256 sockets.
OPEN_FILES_MIN = 1024
# Room for PostgreSQL's log of changes, and for a stop in good order.
DISK_BYTES_MIN = 64 * MIB


class Outcome(enum.Enum):
    """What a finding means for the start."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        name: stable; the configuration key for a port.
        outcome: ok, warning or failed.
        detail: what was found.
        hint: what to do about it; empty for ok.
    """

    name: str
    outcome: Outcome
    detail: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}" + (f"; {self.hint}" if self.hint else "")


def judge_host(facts: HostFacts) -> tuple[Finding, ...]:
    """Judge what needs no configuration."""
    return (
        _interpreter(facts.python),
        _memory(facts.memory_available_bytes),
        _memory_limit(facts.memory_limit_bytes),
        _processes(facts.processes_max),
        _open_files(facts.open_files_max),
        _kvm(facts),
        _network_admin(has_net_admin=facts.has_net_admin),
    )


def judge_node(facts: NodeFacts) -> tuple[Finding, ...]:
    """Judge what the configuration asks for."""
    findings = [
        _state_directory(facts.state),
        _disk(facts.state),
        _log_directory(facts.logs),
        *map(_port, facts.ports),
    ]
    if facts.euid == 0:
        findings.append(_group(facts.account))
        if facts.embedded:
            findings.append(_service_user(facts.account, facts.state.path))
    if facts.embedded:
        findings += (_postgres(facts.programs), _redis(facts.programs))
    return tuple(findings)


def require(findings: Iterable[Finding]) -> None:
    """Go on only where nothing failed.

    Raises:
        PreflightError: lists every failed finding, a line each.
    """
    failed = [finding for finding in findings if finding.outcome is Outcome.FAILED]
    if failed:
        title = f"preflight failed: {len(failed)} problem{'s' * (len(failed) != 1)}"
        lines = [title, *(f"  {finding}" for finding in failed)]
        raise PreflightError("\n".join(lines), failed=[finding.name for finding in failed])


def _ok(name: str, detail: str) -> Finding:
    return Finding(name, Outcome.OK, detail)


def _warning(name: str, detail: str, hint: str) -> Finding:
    return Finding(name, Outcome.WARNING, detail, hint)


def _failed(name: str, detail: str, hint: str) -> Finding:
    return Finding(name, Outcome.FAILED, detail, hint)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes // MIB} MiB"


def _interpreter(python: tuple[int, int, int]) -> Finding:
    name, detail = "interpreter", "Python " + ".".join(map(str, python))
    if python[:2] < PYTHON_MIN:
        return _failed(name, detail, "the node needs Python 3.11; install the package python3.11")
    return _ok(name, detail)


def _memory(available_bytes: int | None) -> Finding:
    name = "memory"
    if available_bytes is None:
        return _warning(name, "/proc/meminfo says nothing", "see that 512 MiB are available")
    detail = f"{_mib(available_bytes)} available"
    if available_bytes < MEMORY_BYTES_MIN:
        return _failed(name, detail, f"the node needs {_mib(MEMORY_BYTES_MIN)}; end other programs")
    return _ok(name, detail)


def _memory_limit(limit_bytes: int | None) -> Finding:
    name = "memory-limit"
    if limit_bytes is None:
        return _ok(name, "no limit of the control group")
    detail = f"the control group allows {_mib(limit_bytes)}"
    if limit_bytes < MEMORY_BYTES_MIN:
        need = f"the node needs {_mib(MEMORY_BYTES_MIN)}"
        return _failed(name, detail, f"{need}; raise MemoryMax of the unit or the container's")
    return _ok(name, detail)


def _processes(limit: int | None) -> Finding:
    name = "processes"
    if limit is None:
        return _ok(name, "no limit of the control group")
    detail = f"the control group allows {limit} processes"
    if limit < PROCESSES_MIN:
        need = f"the node needs {PROCESSES_MIN}"
        return _failed(name, detail, f"{need}; raise TasksMax of the unit or the container's")
    return _ok(name, detail)


def _open_files(limit: int) -> Finding:
    name, detail = "open-files", f"{limit} open files allowed"
    if limit < OPEN_FILES_MIN:
        hint = f"transfers between hosts may fail below {OPEN_FILES_MIN}; raise LimitNOFILE"
        return _warning(name, detail, f"{hint} or ulimit -n")
    return _ok(name, detail)


def _kvm(facts: HostFacts) -> Finding:
    name, slow = "kvm", "guests run without hardware acceleration"
    if not facts.has_kvm:
        return _warning(name, f"/dev/kvm is missing: {slow}", "enable it in the firmware")
    if not facts.may_open_kvm:
        return _warning(name, f"/dev/kvm may not be opened: {slow}", "join the group kvm")
    return _ok(name, "/dev/kvm is usable")


def _network_admin(*, has_net_admin: bool) -> Finding:
    name = "network-admin"
    if has_net_admin:
        return _ok(name, "CAP_NET_ADMIN is there")
    hint = "run the node as root or give it the capability"
    return _warning(name, "CAP_NET_ADMIN is missing: the bridge is skipped", hint)


def _state_directory(state: DirectoryFacts) -> Finding:
    name = "state-directory"
    if problem := _unusable(state):
        return _failed(name, problem, "repair that, or name another directory with --state-dir")
    return _ok(name, f"{state.path} is writable")


def _log_directory(logs: DirectoryFacts) -> Finding:
    name = "log-directory"
    if problem := _unusable(logs):
        return _warning(name, f"{problem}: logs go to the console", "repair that or system.logDir")
    return _ok(name, f"{logs.path} is writable")


def _unusable(found: DirectoryFacts) -> str:
    where = found.existing
    if found.existing != found.path:
        where = f"{found.existing}, above {found.path},"
    if not found.is_directory:
        return f"{where} is no directory"
    if found.is_read_only:
        return f"{where} is on a read-only filesystem"
    if not found.is_writable:
        return f"{where} is not writable for this user"
    return ""


def _disk(state: DirectoryFacts) -> Finding:
    name = "disk"
    if state.free_bytes is None:
        return _warning(name, f"free space of {state.existing} is not known", "check it with df")
    detail = f"{_mib(state.free_bytes)} free at {state.existing}"
    if state.free_bytes < DISK_BYTES_MIN:
        return _failed(name, detail, f"the node needs {_mib(DISK_BYTES_MIN)}; make room")
    return _ok(name, detail)


def _port(port: PortFacts) -> Finding:
    where = f"port {port.port} of {port.host}"
    match port.state:
        case PortState.USED:
            holder = f" by process {port.holder_pid}" if port.holder_pid else ""
            named = f" ({port.holder_name})" if port.holder_pid and port.holder_name else ""
            hint = f"end that program or choose another {port.key}"
            return _failed(port.key, f"{where} is used{holder}{named}", hint)
        case PortState.DENIED:
            hint = f"choose a {port.key} from 1024 on, or give the node CAP_NET_BIND_SERVICE"
            return _failed(port.key, f"{where} is not allowed for this user", hint)
        case PortState.NO_ADDRESS:
            hint = f"name an address of this host beside {port.key}"
            return _failed(port.key, f"{port.host} is no address of this host", hint)
        case PortState.UNKNOWN:
            return _ok(port.key, f"{where} is tried when its service starts")
        case PortState.FREE:
            return _ok(port.key, f"{where} is free")


def _group(account: AccountFacts) -> Finding:
    name = "group"
    if account.has_group:
        return _ok(name, f"group {account.group} may use the control socket")
    hint = f"make it with: addgroup --system {account.group}"
    detail = f"there is no group {account.group}: only root may use the control socket"
    return _warning(name, detail, hint)


def _service_user(account: AccountFacts, state: str) -> Finding:
    name, user, group = "service-user", account.user, account.group
    if account.user_id is None:
        hint = f"make it with: adduser --system --group --no-create-home {user}"
        return _failed(name, f"there is no user {user} to run PostgreSQL and Redis as", hint)
    if account.user_id == 0:
        hint = "name another user in system.serviceUser"
        return _failed(name, "PostgreSQL refuses to run as root", hint)
    if account.blocked_at:
        hint = f"choose another --state-dir, or: chmod o+x {account.blocked_at}"
        detail = f"user {user} can't enter {account.blocked_at} on the way to {state}"
        return _failed(name, detail, hint)
    if account.is_member:
        hint = f"take it out with: gpasswd --delete {user} {group}"
        if account.is_primary:
            hint = "name an account with a group of its own in system.serviceUser"
        detail = f"user {user} of PostgreSQL and Redis is in group {group} and may command the node"
        return _warning(name, detail, hint)
    return _ok(name, f"PostgreSQL and Redis run as {user}")


def _postgres(programs: frozenset[str]) -> Finding:
    if POSTGRES in programs:
        return _ok(POSTGRES, "PostgreSQL is installed")
    hint = "install it with: apt-get install postgresql, or set database.mode to external"
    return _failed(POSTGRES, "PostgreSQL is not installed", hint)


def _redis(programs: frozenset[str]) -> Finding:
    if REDIS in programs:
        return _ok(REDIS, "Redis is installed")
    hint = "install it with: apt-get install redis-server"
    return _warning(REDIS, "Redis is not installed: the cache is local only", hint)
