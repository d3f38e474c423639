"""The first instructions of every child: what its process is set to, then what it is for."""

from __future__ import annotations

import gc
import importlib
import os
import pwd
import signal
import socket
from pathlib import Path
from typing import Any, NoReturn

from protocol import codec
from protocol.codec import MESSAGE_BYTES_MAX
from protocol.errors import NovacronError
from protocol.records import from_wire
from supervisor.child import command, credentials, logs, warm
from supervisor.child.failure import report_failure
from supervisor.child.service import BlockingService, Command, CriticalError, Service
from supervisor.core.reason import EXIT_NORMAL
from supervisor.core.resources import NO_LIMITS
from supervisor.core.spec import ChildType
from supervisor.posix import capabilities, prctl, resources
from supervisor.posix.board import Board
from supervisor.posix.title import set_title
from supervisor.runtime import stacks
from supervisor.runtime.launch import Launch


class AccountError(NovacronError):
    """There is no such account as the child is to run as."""

    code = "supervisor.account"


class LimitsError(CriticalError):
    """The child's specification requires limits that can't be had here."""

    code = "supervisor.limits"


def run(handover: socket.socket, launcher_pid: int, *, is_spare: bool) -> int:
    """Become a child, once it is said which, and stay it; returns the exit code.

    Args:
        handover: brings the Launch, with the descriptors of the board and, for a supervisor, of
            its channel to the launcher; closed when nobody needs this process.
        launcher_pid: the process that forked this one.
        is_spare: there is time until then.
    """
    _detach(launcher_pid)
    warmth = warm.warm_up() if is_spare else warm.Warmth()
    data, descriptors, _flags, _address = socket.recv_fds(
        handover, MESSAGE_BYTES_MAX, 2, socket.MSG_CMSG_CLOEXEC
    )
    handover.close()
    if not data:
        return EXIT_NORMAL
    launch, board = from_wire(Launch, codec.decode(data)), Board(descriptors[0])
    try:
        _settle(launch, launcher_pid)
        match launch.spec.type:
            case ChildType.SERVICE:
                return _run_service(launch, board, warmth)
            case ChildType.LOOP:
                return _run_loop(launch, board, warmth)
            case ChildType.SUPERVISOR:
                return _run_supervisor(launch, board, warmth, descriptors[1], launcher_pid)
            case ChildType.COMMAND:
                _run_command(launch)
    # The outermost frame of a process: what comes here is logged, left for the supervisor, and
    # ends the process. BaseException, since SystemExit of a library must not pass for success.
    except BaseException as exc:  # noqa: BLE001
        return report_failure(launch, board, exc)


def resolve(start: str) -> Any:  # Any: whatever the text names
    """Import what ``package.module:Name`` names."""
    module, _, name = start.partition(":")
    return getattr(importlib.import_module(module), name)


def _detach(launcher_pid: int) -> None:
    """Leave what was the launcher's: session, signal handling."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what came since the fork takes effect now
    prctl.die_with_parent(launcher_pid)


def _settle(launch: Launch, launcher_pid: int) -> None:
    """Set the process to what its specification says."""
    spec, tree = launch.spec, launch.tree
    if spec.type is ChildType.COMMAND:
        _redirect_output(launch)  # first, so that what goes wrong is said there
    refused = _limit(launch)
    account = _account(spec.user) if spec.user else None
    if spec.type is ChildType.COMMAND:
        _hand_over_credentials(launch, account)
    else:
        stacks.keep(stacks.open_file(Path(tree.run_dir), launch.path))
    if account is not None:
        if spec.type is ChildType.COMMAND:
            capabilities.renounce_inheritable()
        _become_user(account)
        prctl.die_with_parent(launcher_pid)  # forgotten by the kernel at a change of user
    if spec.type is ChildType.COMMAND:
        prctl.renounce_new_privileges()
    set_title(f"{tree.title}: {launch.path}")
    if spec.type in (ChildType.SERVICE, ChildType.LOOP):
        from supervisor import quiet_imports as quiet_imports  # they log by structlog
    if spec.type is not ChildType.COMMAND:
        logs.configure(
            launch.path,
            log_dir=tree.log_dir,
            level=tree.log_level,
            bytes_max=tree.log_bytes_max,
            files=tree.log_files,
        )
    if refused:
        _say_refused(launch, refused)


def _limit(launch: Launch) -> list[str]:
    """Set this process to its resources; returns what could not be had, a sentence each."""
    wanted, cpus = launch.spec.resources, frozenset(launch.cpus)
    has_cpus = not cpus or cpus == os.sched_getaffinity(0)
    if wanted == NO_LIMITS and has_cpus and not launch.group:
        return []
    refused = [*launch.refused, *resources.apply(wanted, cpus, group=launch.group)]
    if refused and wanted.required:
        raise LimitsError("; ".join(refused))
    return refused


def _say_refused(launch: Launch, refused: list[str]) -> None:
    if launch.spec.type is ChildType.COMMAND:
        os.write(2, f"{launch.tree.title}: not applied: {'; '.join(refused)}\n".encode())
    else:
        logs.Logger().warning("limits_not_applied", limits=refused)


def _account(user: str) -> pwd.struct_passwd | None:
    """Whom to become; None for one who is it already."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise AccountError(f"there is no user {user}") from None
    return None if os.geteuid() == entry.pw_uid else entry


def _become_user(account: pwd.struct_passwd) -> None:
    os.initgroups(account.pw_name, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def _redirect_output(launch: Launch) -> None:
    """Point a command's output to a file, which never makes it wait, as a pipe would."""
    if not launch.tree.log_dir:
        return
    target = logs.log_file(Path(launch.tree.log_dir), launch.path, ".log")
    descriptor = logs.open_output(target)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _hand_over_credentials(launch: Launch, account: pwd.struct_passwd | None) -> None:
    if (secrets := launch.spec.settings.get(credentials.SETTING)) is not None:
        target = credentials.directory(Path(launch.tree.run_dir), launch.path)
        owner = None if account is None else (account.pw_uid, account.pw_gid)
        credentials.create(target, secrets, owner=owner)


def _run_service(launch: Launch, board: Board, warmth: warm.Warmth) -> int:
    from supervisor.child.asyncio_runtime import run_service

    gc.enable()  # the launcher has none; what it shares with us is frozen and stays so
    service = resolve(launch.spec.start)()
    assert isinstance(service, Service)
    return run_service(service, launch, board, warmth)


def _run_loop(launch: Launch, board: Board, warmth: warm.Warmth) -> int:
    from supervisor.child.blocking_runtime import run_blocking_service

    warmth.drop_loop()
    gc.enable()  # as for a service
    service = resolve(launch.spec.start)()
    assert isinstance(service, BlockingService)
    return run_blocking_service(service, launch, board, warmth.context)


def _run_supervisor(
    launch: Launch, board: Board, warmth: warm.Warmth, channel: int, launcher_pid: int
) -> int:
    from supervisor.runtime.launcher_client import LauncherClient
    from supervisor.runtime.nested import run_nested_supervisor

    warmth.drop_loop()
    launcher = LauncherClient(socket.socket(fileno=channel), launcher_pid)
    return run_nested_supervisor(launch, board, launcher, warmth.context)


def _run_command(launch: Launch) -> NoReturn:
    settings = dict(launch.spec.settings)
    settings.pop(credentials.SETTING, None)
    prepared = resolve(launch.spec.start)(settings)
    assert isinstance(prepared, Command)
    command.become(prepared, command.full_environment(prepared, launch))
