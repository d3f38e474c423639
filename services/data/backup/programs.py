"""pg_dump and pg_restore, run so that nobody else sees the password.

What they need to connect stands in their own environment, except for the password: that is in an
unnamed file in memory which only they and we have open. Nothing of it is in a command line or on
a disk.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from services.data import cluster
from services.data.backup.errors import ServerProgramError
from services.data.model import PostgresSettings
from services.data.refusal import one_line
from supervisor.runtime.program import dying_with_us

_SAID_BYTES_MAX = 4000
_END_TIMEOUT_S = 10.0


class Program:
    """A running program of PostgreSQL's; see ``running``."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        self._name = name
        self._process = process
        self._said = said

    @property
    def output(self) -> IO[bytes]:
        """What it writes."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def input(self) -> IO[bytes]:
        """What it reads."""
        assert self._process.stdin is not None
        return self._process.stdin

    def wait(self) -> None:
        """Wait for its end.

        Raises:
            ServerProgramError: it failed; with what it said.
        """
        with suppress(BrokenPipeError):
            self.input.close()
        code = self._process.wait()
        if code:
            self._said.seek(0)
            said = one_line(self._said.read(_SAID_BYTES_MAX).decode(errors="replace"))
            raise ServerProgramError(f"{self._name} failed with exit code {code}: {said}")


@contextmanager
def running(
    name: str, arguments: tuple[str, ...], settings: PostgresSettings, *, server_major: int
) -> Iterator[Program]:
    """Run a program; it is ended with the block, however that ends.

    Args:
        name: pg_dump or pg_restore.
        arguments: without anything secret.
        settings: the server.
        server_major: its version; a program of an older one could not speak to it.

    Raises:
        ServerProgramError: there is no such program of that version.
    """
    with ExitStack() as stack:
        said = stack.enter_context(tempfile.TemporaryFile())
        environment = _environment(settings)
        descriptors: tuple[int, ...] = ()
        if settings.password:
            secret = _password_file(settings.password)
            stack.callback(os.close, secret)
            environment["PGPASSFILE"] = f"/proc/self/fd/{secret}"
            descriptors = (secret,)
        with _uninterrupted():
            process = subprocess.Popen(
                dying_with_us([str(_find(name, server_major)), *arguments]),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                pass_fds=descriptors,
                bufsize=0,
                # Ctrl-C is ours: we end it when we have understood.
                start_new_session=True,
            )
            stack.callback(_end, process)
        yield Program(name, process, said)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the program is known, or nobody would end it.

    The program goes on without these signals; it is ended by SIGKILL.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    if process.poll() is None:
        process.kill()  # it keeps nothing that it could leave in disorder
        process.wait(_END_TIMEOUT_S)


def _find(name: str, server_major: int) -> Path:
    installed = cluster.installed_versions(cluster.DEBIAN_VERSIONS_DIR)
    fitting = [int(version) for version in installed if int(version) >= server_major]
    for version in sorted(fitting):
        program = installed[str(version)] / name
        if program.is_file():
            return program
    import shutil  # only where the packages are not Debian's

    if found := shutil.which(name):
        return Path(found)
    raise ServerProgramError(
        f"{name} of PostgreSQL {server_major} or newer is not installed here; "
        f"install postgresql-client-{server_major}"
    )


def _environment(settings: PostgresSettings) -> dict[str, str]:
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "PGHOST": settings.host,
        "PGPORT": str(settings.port),
        "PGDATABASE": settings.database,
        "PGUSER": settings.user,
        "PGSSLMODE": settings.ssl_mode,
        "PGCONNECT_TIMEOUT": str(max(2, round(settings.connect_timeout_s))),
        "PGAPPNAME": "novacronctl db",
    }
    files = {
        "PGSSLROOTCERT": settings.ssl_root_cert,
        "PGSSLCERT": settings.ssl_cert,
        "PGSSLKEY": settings.ssl_key,
    }
    return environment | {name: file for name, file in files.items() if file}


def _password_file(password: str) -> int:
    if "\n" in password or "\r" in password or "\0" in password:
        raise ServerProgramError("a password with a line end can't be given to pg_dump: change it")
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    descriptor = os.memfd_create("pgpass", os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)  # libpq reads no other
        os.write(descriptor, f"*:*:*:*:{escaped}\n".encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
