"""What a command can end with: exit codes, and the errors that stand for them."""

from __future__ import annotations

import enum
import errno
from pathlib import Path

from protocol.errors import NovacronError


class Exit(enum.IntEnum):
    """Exit codes of every command but ``status``."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    DENIED = 4


class StatusExit(enum.IntEnum):
    """Exit codes of ``status``; what keeps the question from being asked ends as in ``Exit``."""

    READY = 0
    DEGRADED = 1
    NOT_READY = 2
    NOT_RUNNING = 3


class CtlError(NovacronError):
    """A command could not be carried out; ``exit_code`` is what it ends with."""

    code = "ctl.failed"
    exit_code = Exit.FAILED


class NotRunningError(CtlError):
    """No node runs on this state directory: start it, or name another directory."""

    code = "ctl.not_running"
    exit_code = Exit.NOT_RUNNING


class DeniedError(CtlError):
    """This user may not speak to the node: become root, or join the named group."""

    code = "ctl.denied"
    exit_code = Exit.DENIED


class NoComponentError(CtlError):
    """The node has no component of that name; the message proposes the closest ones."""

    code = "ctl.no_component"
    exit_code = Exit.USAGE


class UsageError(CtlError):
    """The command can't mean that; the message says what it could mean."""

    code = "ctl.usage"
    exit_code = Exit.USAGE


class NodeHungError(CtlError):
    """The node's process is there and does not answer in time."""

    code = "ctl.node_hung"
    retryable = True


def denied(file: Path) -> DeniedError:
    """The error for a file that this user may not open, naming the file and who may.

    Args:
        file: what could not be opened. Where it can't even be looked at, the closest directory
            above it that can names the group.
    """
    user = _user()
    group = _group_of(file)
    if group is None or group == "root":
        advice = "become root"
    else:
        advice = f"become root, or have {user} join the group {group} (usermod -aG {group} {user})"
    return DeniedError(f"user {user} may not open {file}: {advice}", file=str(file), group=group)


def is_denial(error: OSError) -> bool:
    """Tell whether an operating system's error means that the user lacks the right."""
    return error.errno in (errno.EACCES, errno.EPERM)


def _user() -> str:
    import getpass  # this module is imported on every call, and this happens on few

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        return "this account"


def _group_of(file: Path) -> str | None:
    import grp

    for place in (file, *file.parents):
        try:
            return grp.getgrgid(place.stat().st_gid).gr_name
        except (OSError, KeyError):
            continue
    return None
