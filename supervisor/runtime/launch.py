"""All that a new process of the tree has to know, as its supervisor hands it over."""

from __future__ import annotations

from protocol.dataclass import dataclass
from supervisor.core.spec import ChildSpec

# Prefix of the titles of a tree's processes.
TITLE = "novacron"
# Long against what renewing costs, short against what somebody does with a stolen key.
IDENTITY_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSettings:
    """What holds for every process of one tree.

    Attributes:
        run_dir, log_dir: absolute paths; "" as log_dir logs to the standard error stream alone.
        log_level: debug, info, warning or error.
        log_bytes_max: a log file is rotated at this size.
        log_files: rotated files that are kept beside the current one.
        title: prefix of the process titles.
        takes_children: operators may add children at run time and delete them, which is as much
            as running any program as the tree's user; without it, of templates alone.
        spool_dir: absolute path of the audit spool; "" where nothing can be recorded.
        has_policy: the run directory holds one, so that a missing one allows nothing.
        identity_s: life of the keys that a process calls with.
    """

    run_dir: str
    log_dir: str = ""
    log_level: str = "info"
    log_bytes_max: int = 10 << 20
    log_files: int = 5
    title: str = TITLE
    takes_children: bool = False
    spool_dir: str = ""
    has_policy: bool = False
    identity_s: float = IDENTITY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A plain program, for which no Python need run in the new process.

    Attributes:
        argv: program (absolute path) and arguments.
        environment: all its variables.
        directory: where it works.
        umask: for files that it makes.
        cpus: that it may run on; empty for all.
        output: the file that its output is appended to; "" for the tree's standard error.
    """

    argv: tuple[str, ...]
    environment: dict[str, str]
    directory: str = "/"
    umask: int = 0o022
    cpus: tuple[int, ...] = ()
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One process to create.

    Attributes:
        tree: settings of the tree.
        spec: what to run.
        incarnation: which process of the child it is.
        path, supervisor_path: places in the tree.
        slot: where it beats on the supervisor's board.
        public_key, secret_key: its CURVE keys as a server, Z85.
        identity_secret, identity_since_s: from which and from when on it derives the keys that
            it calls with; empty for a command.
        tree_secret: from which a nested supervisor derives its children's keys; else empty.
        notify_socket: where a command says READY=1; "" for one that need not.
        cpus: that it may run on; empty for all.
        group: directory of the control group that it moves into; "" for none.
        refused: limits that its supervisor could not provide, a sentence each.
    """

    tree: TreeSettings
    spec: ChildSpec
    incarnation: int
    path: str
    supervisor_path: str
    slot: int
    public_key: bytes
    secret_key: bytes
    identity_secret: bytes = b""
    identity_since_s: float = 0.0
    tree_secret: bytes = b""
    notify_socket: str = ""
    cpus: tuple[int, ...] = ()
    group: str = ""
    refused: tuple[str, ...] = ()
