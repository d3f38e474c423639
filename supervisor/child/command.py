"""Commands: programs as children, and how a process of ours becomes one.

``prepare`` suits most programs; one that needs files or checks first has a function of its own,
see supervisor.child.service.Command. A program gets three standard streams, a plain environment
and no signal that is ignored or blocked; a failure to execute it is said at once.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from protocol.errors import NovacronError
from protocol.records import Plain
from supervisor.child import credentials
from supervisor.child.service import Command
from supervisor.core.readiness import ReadinessKind
from supervisor.runtime.launch import Launch

START = "supervisor.child.command:prepare"
# Programs get a plain path and nothing of our environment.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Descriptors above this are not ours: the tree opens a few dozen per process.
_DESCRIPTORS_MAX = 1 << 16
# The kernel reads so much of a script's first line.
_FIRST_LINE_BYTES = 256
_UMASK_MAX = 0o777


class ProgramError(NovacronError):
    """A program can't be executed as its child's settings say."""

    code = "supervisor.program"


def prepare(settings: Mapping[str, Plain]) -> Command:
    """Make a Command of a child's settings.

    Args:
        settings: ``argv``, the program and its arguments, where a program without a slash is
            looked for in PATH; ``environment``, variables beside PATH and LANG; ``directory``,
            an absolute path to work in, "" for ``/``; ``umask``, a number, 0o022 unless given.

    Raises:
        ProgramError: the settings have another shape, or there is no such program.
    """
    match settings:
        case {"argv": [str(), *_] as argv} if all(isinstance(word, str) for word in argv):
            pass
        case _:
            raise ProgramError("argv must be a list of strings, the program first")
    environment = settings.get("environment", {})
    directory = settings.get("directory", "")
    umask = settings.get("umask", 0o022)
    if not isinstance(environment, Mapping) or not _are_strings(environment):
        raise ProgramError("environment must be a map from text to text")
    if directory and not (isinstance(directory, str) and directory.startswith("/")):
        raise ProgramError(f"directory is {directory!r}; an absolute path")
    if not (isinstance(umask, int) and 0 <= umask <= _UMASK_MAX):
        raise ProgramError(f"umask is {umask!r}; 0 to 0o777")
    return Command(
        argv=(_find(argv[0]), *argv[1:]),
        environment=dict(environment),
        directory=directory,
        umask=umask,
    )


def full_environment(command: Command, launch: Launch) -> dict[str, str]:
    """All variables that a program gets.

    Raises:
        ProgramError: it asks for a readiness that this tree can't see.
    """
    readiness = launch.spec.readiness
    if readiness.kind is ReadinessKind.LOG and not launch.tree.log_dir:
        raise ProgramError("readiness by a line of the log needs a log directory")
    environment = {"PATH": PATH, "LANG": "C.UTF-8", **command.environment}
    if readiness.needs_socket:
        environment["NOTIFY_SOCKET"] = launch.notify_socket
    if readiness.watchdog_s is not None:
        environment["WATCHDOG_USEC"] = str(int(readiness.watchdog_s * 1e6))
    if credentials.SETTING in launch.spec.settings:
        target = credentials.directory(Path(launch.tree.run_dir), launch.path)
        environment["CREDENTIALS_DIRECTORY"] = str(target)
    return environment


def become(command: Command, environment: dict[str, str]) -> NoReturn:
    """Execute a program in place of this process.

    Raises:
        ProgramError: it can't be executed, or its directory can't be entered.
    """
    try:
        os.chdir(command.directory or "/")
    except OSError as exc:
        raise ProgramError(f"directory {command.directory}: {exc.strerror}") from exc
    os.umask(command.umask)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.closerange(3, min(_DESCRIPTORS_MAX, os.sysconf("SC_OPEN_MAX")))
    program = command.argv[0]
    try:
        os.execve(program, command.argv, environment)  # noqa: S606 - an argv list, no shell
    except OSError as exc:
        raise ProgramError(f"{program}: {_problem(program) or exc.strerror}") from exc


def is_native(program: str) -> bool:
    """Whether any process that may execute a program succeeds in it, as far as can be seen."""
    first = _first_line(program)
    return first.startswith((b"\x7fELF", b"#!")) and not _problem(program)


def _find(program: str) -> str:
    """The program's absolute path.

    Raises:
        ProgramError: there is none, or it can't be executed.
    """
    found = _which(program)
    if found is None:
        raise ProgramError(f"{program}: {_why_not(Path(program))}")
    if problem := _problem(found):
        raise ProgramError(f"{found}: {problem}")
    return found


def _which(program: str) -> str | None:
    """As shutil's, whose module brings two compressors with it."""
    if "/" in program:
        return program if _is_executable(program) else None
    places = (f"{directory}/{program}" for directory in PATH.split(":"))
    return next(filter(_is_executable, places), None)


def _is_executable(file: str) -> bool:
    return os.access(file, os.X_OK) and not Path(file).is_dir()


def _why_not(program: Path) -> str:
    if len(program.parts) == 1:
        return os.strerror(errno.ENOENT)
    try:
        is_directory = stat.S_ISDIR(program.stat().st_mode)
        return os.strerror(errno.EISDIR if is_directory else errno.EACCES)
    except OSError as exc:
        return str(exc.strerror)


def _problem(program: str) -> str:
    """What the kernel, which says that there is no such file, means by it: the interpreter."""
    first = _first_line(program)
    words = first.removeprefix(b"#!").split()
    if not first.startswith(b"#!") or not words or os.access(words[0], os.X_OK):
        return ""
    return f"its interpreter {os.fsdecode(words[0])} can't be executed"


def _first_line(program: str) -> bytes:
    """Empty for a program that may be executed but not read."""
    try:
        descriptor = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _FIRST_LINE_BYTES).partition(b"\n")[0]
    finally:
        os.close(descriptor)


def _are_strings(environment: Mapping[Plain, Plain]) -> bool:
    return all(isinstance(key, str) and isinstance(it, str) for key, it in environment.items())
