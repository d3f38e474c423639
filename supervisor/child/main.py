"""The first instructions of every child: what its process is set to, then what it is for."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import os
import pwd
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from protocol import codec
from protocol.codec import MESSAGE_BYTES_MAX
from protocol.records import from_wire
from supervisor.child import logs, warm
from supervisor.child.failure import report_failure
from supervisor.child.service import BlockingService, Command, Service
from supervisor.core.reason import EXIT_NORMAL
from supervisor.core.spec import ChildSpec, ChildType
from supervisor.posix import prctl, processes
from supervisor.posix.board import Board
from supervisor.runtime.launch import Launch

# Descriptors above this are not ours: the tree opens a few dozen per process.
_DESCRIPTORS_MAX = 1 << 16
# The programs of commands get a plain path and nothing of our environment.
COMMAND_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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
    data, descriptors, _flags, _address = socket.recv_fds(handover, MESSAGE_BYTES_MAX, 2)
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
                return _run_command(launch)
    # The outermost frame of a process: what comes here is logged, left for the supervisor, and
    # ends the process. BaseException, since SystemExit of a library must not pass for success.
    except BaseException as exc:  # noqa: BLE001
        return report_failure(launch, board, exc)


def set_title(title: str) -> None:
    """Show what the process is in ps and top."""
    import setproctitle

    setproctitle.setproctitle(title)


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
    if spec.cpus:
        processes.pin(spec.cpus)
    if spec.type is ChildType.COMMAND:
        _redirect_output(launch)
    if spec.user:
        _become_user(spec.user)
        prctl.die_with_parent(launcher_pid)  # forgotten by the kernel at a change of user
    if spec.type is ChildType.COMMAND:
        prctl.renounce_new_privileges()
    set_title(f"{tree.title}: {launch.path}")
    if spec.type is not ChildType.COMMAND:
        logs.configure(
            launch.path,
            log_dir=tree.log_dir,
            level=tree.log_level,
            bytes_max=tree.log_bytes_max,
            files=tree.log_files,
        )
        faulthandler.enable(all_threads=True)  # SIGABRT of a hung child shows where it hangs


def _become_user(user: str) -> None:
    entry = pwd.getpwnam(user)
    if os.geteuid() == entry.pw_uid:
        return
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def _redirect_output(launch: Launch) -> None:
    """Point a command's output to a file, which never makes it wait, as a pipe would."""
    if not launch.tree.log_dir:
        return
    target = logs.log_file(Path(launch.tree.log_dir), launch.path, ".log")
    if target.exists() and target.stat().st_size > launch.tree.log_bytes_max:
        target.replace(target.with_suffix(".log.1"))
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


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


def _run_command(launch: Launch) -> int:
    spec: ChildSpec = launch.spec
    command = resolve(spec.start)(spec.settings)
    assert isinstance(command, Command)
    environment = {"PATH": COMMAND_PATH, "LANG": "C.UTF-8", **command.environment}
    environment["NOTIFY_SOCKET"] = launch.notify_socket
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    os.closerange(3, min(_DESCRIPTORS_MAX, os.sysconf("SC_OPEN_MAX")))
    os.execve(command.argv[0], command.argv, environment)  # noqa: S606 - an argv list, no shell
