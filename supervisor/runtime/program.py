"""Programs that the launcher executes directly, without forking itself.

A fork of the launcher with its imports costs some milliseconds, and tearing it down again at the
exec as much. A plain program needs nothing that Python would have to set up in the new process:
``vfork`` and ``setpriv`` of util-linux do it in one.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from protocol.errors import NovacronError
from supervisor.child import command, credentials, logs
from supervisor.core.resources import NO_LIMITS
from supervisor.core.spec import ChildType
from supervisor.runtime.launch import Launch, Program

_SETPRIV = "/usr/bin/setpriv"
# What it is called meanwhile; see runtime.readiness, which tells it from the program by that.
_PASSING = "setpriv"


def plain_program(launch: Launch) -> Program | None:
    """The program of a launch that is one and asks for no more; else None."""
    spec, tree = launch.spec, launch.tree
    is_plain = spec.type is ChildType.COMMAND and spec.start == command.START
    if not is_plain or spec.user or spec.resources != NO_LIMITS:
        return None
    if launch.group or credentials.SETTING in spec.settings:
        return None
    try:
        prepared = command.prepare(spec.settings)
        environment = command.full_environment(prepared, launch)
    except NovacronError:
        return None  # the child says what is wrong with it, in its own name
    if not command.is_native(prepared.argv[0]):
        return None  # what it is, and what is wrong with it, only the kernel knows
    output = logs.log_file(Path(tree.log_dir), launch.path, ".log") if tree.log_dir else ""
    return Program(
        argv=prepared.argv,
        environment=environment,
        directory=prepared.directory or "/",
        umask=prepared.umask,
        output=str(output),
        cpus=launch.cpus,
    )


@functools.cache
def can_execute() -> bool:
    """Whether setpriv is here and can have a program die with its parent."""
    with contextlib.suppress(OSError):
        answer = subprocess.run([_SETPRIV, "--help"], capture_output=True, check=False)
        return b"--pdeathsig" in answer.stdout
    return False


def dying_with_us(argv: Sequence[str]) -> list[str]:
    """The command line of a program that the kernel kills when the calling thread ends."""
    return [_SETPRIV, "--pdeathsig", "KILL", "--", *argv] if can_execute() else list(argv)


def execute(program: Program) -> int:
    """Start a program in a session of its own that dies with this process; returns its pid.

    Raises:
        OSError: it can't be executed, or its output can't be opened.
    """
    if not os.access(program.argv[0], os.X_OK):
        raise OSError(errno.ENOENT, "can't be executed", program.argv[0])
    output = logs.open_output(Path(program.output)) if program.output else None
    own_cpus = os.sched_getaffinity(0) if program.cpus else frozenset()
    # The new process inherits the mask; what comes meanwhile has a handler that does nothing.
    own_mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        if program.cpus:
            with contextlib.suppress(OSError):  # none of them is here, as its supervisor sees
                os.sched_setaffinity(0, program.cpus)
        # Not posix_spawn: the C library's ignores two signals of its own there, for good.
        process = subprocess.Popen(
            (_PASSING, "--pdeathsig", "KILL", "--no-new-privs", "--", *program.argv),
            executable=_SETPRIV,
            env=program.environment,
            cwd=program.directory,
            umask=program.umask,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            close_fds=False,  # each is closed at the exec by itself
        )
        process.returncode = 0  # it is reaped by its number, and not by its object
        return process.pid
    finally:
        if own_cpus:
            os.sched_setaffinity(0, own_cpus)
        signal.pthread_sigmask(signal.SIG_SETMASK, own_mask)
        if output is not None:
            os.close(output)
