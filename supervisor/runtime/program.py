"""Programs that the launcher executes directly, without forking itself.

A fork of the launcher with its imports costs some milliseconds, and tearing it down again at the
exec as much. A plain program needs nothing that Python would have to set up in the new process:
``posix_spawn`` and ``setpriv`` of util-linux do it in one.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import subprocess
from pathlib import Path

from protocol.errors import NovacronError
from supervisor.child import command, credentials, logs
from supervisor.core.spec import ChildType
from supervisor.runtime.launch import Launch, Program

_SETPRIV = "/usr/bin/setpriv"
_ALL_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


def plain_program(launch: Launch) -> Program | None:
    """The program of a launch that is one and asks for no more; else None."""
    spec, tree = launch.spec, launch.tree
    is_plain = spec.type is ChildType.COMMAND and spec.start == command.START
    if not is_plain or spec.user or spec.cpus or credentials.SETTING in spec.settings:
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
    )


@functools.cache
def can_execute() -> bool:
    """Whether setpriv is here and can have a program die with its parent."""
    with contextlib.suppress(OSError):
        answer = subprocess.run([_SETPRIV, "--help"], capture_output=True, check=False)
        return b"--pdeathsig" in answer.stdout
    return False


def execute(program: Program) -> int:
    """Start a program in a session of its own that dies with this process; returns its pid.

    Raises:
        OSError: it can't be executed, or its output can't be opened.
    """
    if not os.access(program.argv[0], os.X_OK):
        raise OSError(errno.ENOENT, "can't be executed", program.argv[0])
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
    ]
    output = None
    if program.output:
        output = logs.open_output(Path(program.output))
        actions += [(os.POSIX_SPAWN_DUP2, output, number) for number in (1, 2)]
    # The new process inherits both from this one, which has no thread that could notice.
    own_directory, own_umask = os.open(".", os.O_PATH | os.O_CLOEXEC), os.umask(program.umask)
    try:
        os.chdir(program.directory)
        return os.posix_spawn(
            _SETPRIV,
            ("setpriv", "--pdeathsig", "KILL", "--no-new-privs", "--", *program.argv),
            program.environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_ALL_SIGNALS,
        )
    finally:
        os.fchdir(own_directory)
        os.close(own_directory)
        os.umask(own_umask)
        if output is not None:
            os.close(output)
