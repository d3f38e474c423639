"""The first instructions of every child: what its process is set to, then what it is for."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import os
import pwd
import signal
import sys
from pathlib import Path
from typing import Any

from supervisor.child import logs
from supervisor.child.failure import report_failure
from supervisor.child.service import BlockingService, Command, Service
from supervisor.core.spec import ChildSpec, ChildType
from supervisor.posix import prctl
from supervisor.posix.board import Board
from supervisor.runtime.launch import Launch

# Descriptors above this are not ours: the tree opens a few dozen per process.
_DESCRIPTORS_MAX = 1 << 16
# The programs of commands get a plain path and nothing of our environment.
COMMAND_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(launch: Launch, board: Board, launcher_pid: int) -> int:
    """Become the child and stay it; returns its exit code.

    Args:
        launch: what to be.
        board: the supervisor's board.
        launcher_pid: the process that forked this one.
    """
    try:
        _settle(launch, launcher_pid)
        match launch.spec.type:
            case ChildType.SERVICE:
                return _run_service(launch, board)
            case ChildType.LOOP:
                return _run_loop(launch, board)
            case ChildType.SUPERVISOR:
                return _run_supervisor(launch, board)
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


def _settle(launch: Launch, launcher_pid: int) -> None:
    spec, tree = launch.spec, launch.tree
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what came since the fork takes effect now
    if spec.cpus:
        os.sched_setaffinity(0, spec.cpus)
    if spec.type is ChildType.COMMAND:
        _redirect_output(launch)
    if spec.user:
        _become_user(spec.user)
    if spec.type is ChildType.COMMAND:
        prctl.renounce_new_privileges()
    prctl.die_with_parent(launcher_pid)
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


def _run_service(launch: Launch, board: Board) -> int:
    from supervisor.child.asyncio_runtime import run_service

    gc.enable()  # the launcher has none; what it shares with us is frozen and stays so
    service = resolve(launch.spec.start)()
    assert isinstance(service, Service)
    return run_service(service, launch, board)


def _run_loop(launch: Launch, board: Board) -> int:
    from supervisor.child.blocking_runtime import run_blocking_service

    gc.enable()  # as for a service
    service = resolve(launch.spec.start)()
    assert isinstance(service, BlockingService)
    return run_blocking_service(service, launch, board)


def _run_supervisor(launch: Launch, board: Board) -> int:
    from supervisor.runtime.nested import run_nested_supervisor

    return run_nested_supervisor(launch, board)


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
