"""The embedded servers: what the supervisor executes for ``data/postgres`` and ``data/redis``.

Both functions run in the child's own process, already as its user, and return the command that
replaces it. Both programs say READY=1 on NOTIFY_SOCKET (Debian builds them with libsystemd).
Stop PostgreSQL with SIGINT, its fast shutdown, and Redis with SIGTERM.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Mapping
from pathlib import Path

from protocol.names import SUN_PATH_MAX
from protocol.records import Plain, from_wire
from services.data import server_config
from services.data.cluster import ensure_cluster, ensure_directory
from services.data.errors import DirectoryError, ProgramMissingError
from services.data.model import EmbeddedPostgresSettings, EmbeddedRedisSettings
from supervisor.child.service import Command

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def prepare_postgres(settings: Mapping[str, Plain]) -> Command:
    """Create the data directory if there is none, write the configuration, name the command.

    Args:
        settings: EmbeddedPostgresSettings as plain values.

    Raises:
        CriticalError: one of the level's errors; trying again would not help.
    """
    parsed = from_wire(EmbeddedPostgresSettings, settings)
    directory = Path(parsed.directory)
    socket = server_config.socket_file(parsed.socket_dir, parsed.port)
    _check_socket_path(socket)
    ensure_directory(socket.parent)
    environment = {"PATH": _PATH, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    bin_dir = ensure_cluster(directory, role=parsed.role, environment=environment)
    _remove_stale_lock(directory / "data")
    users = (_own_user(), *parsed.users)
    options = server_config.postgres_options(parsed)
    _write(directory / "postgresql.conf", server_config.postgres_conf(options))
    _write(directory / "pg_hba.conf", server_config.pg_hba())
    _write(directory / "pg_ident.conf", server_config.pg_ident(users, parsed.role))
    argv = (
        str(bin_dir / "postgres"),
        "-D",
        str(directory / "data"),
        "-c",
        f"config_file={directory / 'postgresql.conf'}",
        *(
            part
            for name, value in server_config.DURABLE.items()
            for part in ("-c", f"{name}={value}")
        ),
    )
    return Command(argv=argv, environment=environment)


def _remove_stale_lock(data: Path) -> None:
    """Remove the lock of a server that has gone and whose process id somebody else has by now.

    PostgreSQL takes any process of its own account with that number for the old server and
    refuses to start; after a reboot, or in a container, the number is soon used again. A server
    works in its data directory, and whoever does not is none.
    """
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().split(maxsplit=1)[0])
        working_dir = Path(f"/proc/{pid}/cwd").readlink()
    except (OSError, ValueError, IndexError):
        return  # no lock, no such process, not ours to look at: PostgreSQL knows what to do
    if working_dir != data.resolve():
        lock.unlink()


def prepare_redis(settings: Mapping[str, Plain]) -> Command:
    """Make the directories and name the command.

    Args:
        settings: EmbeddedRedisSettings as plain values.

    Raises:
        CriticalError: one of the level's errors; trying again would not help.
    """
    parsed = from_wire(EmbeddedRedisSettings, settings)
    socket = Path(parsed.socket)
    _check_socket_path(socket)
    program = shutil.which("redis-server", path=f"{os.environ.get('PATH', '')}:{_PATH}")
    if program is None:
        raise ProgramMissingError("redis-server is not installed; install the package redis-server")
    ensure_directory(Path(parsed.directory))
    ensure_directory(socket.parent)
    argv = (program, *server_config.redis_arguments(parsed))
    return Command(argv=argv, environment={"PATH": _PATH, "LC_ALL": "C.UTF-8"})


def _own_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError as exc:
        raise DirectoryError(
            f"user {os.geteuid()} has no name, which PostgreSQL's peer login needs"
        ) from exc


def _check_socket_path(socket: Path) -> None:
    length = len(os.fsencode(socket))
    if length > SUN_PATH_MAX:
        raise DirectoryError(
            f"the socket's path {socket} has {length} bytes; a socket allows {SUN_PATH_MAX}"
        )


def _write(file: Path, text: str) -> None:
    """Replace a file as a whole, so that a crash leaves the old one or the new one."""
    if file.is_file() and file.read_text() == text:
        return
    draft = file.with_suffix(".new")
    try:
        draft.write_text(text)
        draft.rename(file)
    except OSError as exc:
        raise DirectoryError(f"can't write {file}: {exc.strerror}") from exc
