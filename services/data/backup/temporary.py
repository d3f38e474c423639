"""The embedded server without its node: run for the time of one command, and stopped in order."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psycopg

from protocol.errors import NovacronError
from protocol.records import Plain
from services.data.backup.errors import ServerProgramError
from services.data.backup.server import maintenance
from services.data.embedded import prepare_postgres
from services.data.errors import DatabaseUnavailableError
from services.data.model import PostgresSettings
from supervisor.posix import prctl

# It may have to replay a long log first; an orderly stop writes all that is in memory.
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 120.0
_PAUSE_S = 0.05
_SAID_MAX = 2000


@contextmanager
def running_server(
    settings: PostgresSettings, embedded: Mapping[str, Plain], *, user: str
) -> Iterator[PostgresSettings]:
    """Run the embedded server; the node must not run, nor start meanwhile.

    Args:
        settings: of the database, but for where the server is.
        embedded: EmbeddedPostgresSettings as plain values, but for the socket's directory.
        user: account of the server; "" for our own.

    Yields:
        The settings that reach it.

    Raises:
        ServerProgramError: it does not come up; with what it said.
    """
    directory = Path(tempfile.mkdtemp(prefix="novacron-pg-", dir="/tmp"))
    pid = 0
    try:
        if user:
            shutil.chown(directory, user)
        reachable = replace(settings, host=str(directory))
        log = directory / "log"
        pid = _start({**embedded, "socket_dir": str(directory)}, user, log)
        _wait_ready(pid, reachable, log)
        yield reachable
    finally:
        if pid:
            _stop(pid)
        shutil.rmtree(directory, ignore_errors=True)


def _start(embedded: Mapping[str, Plain], user: str, log: Path) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        # Out of the terminal's group: Ctrl-C is ours, and the server ends with us in any case.
        os.setsid()
        if user:
            account = pwd.getpwnam(user)
            os.initgroups(account.pw_name, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
        prctl.die_with_parent(parent, signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY)):
            os.dup2(os.open(os.devnull, flags), number)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        command = prepare_postgres(embedded)
        os.umask(0o077)
        os.chdir("/")
        os.execve(command.argv[0], command.argv, dict(command.environment))  # noqa: S606 - our own
    except NovacronError as exc:
        os.write(2, str(exc).encode())
    except BaseException as exc:  # noqa: BLE001 - a forked child must not go on as its parent
        os.write(2, repr(exc).encode())
    os._exit(70)


def _wait_ready(pid: int, settings: PostgresSettings, log: Path) -> None:
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_s:
        with suppress(DatabaseUnavailableError, psycopg.Error), maintenance(settings):
            return
        if not _is_running(pid):
            said = log.read_text(errors="replace")[-_SAID_MAX:] if log.exists() else ""
            raise ServerProgramError(f"the embedded PostgreSQL does not start: {said.strip()}")
        time.sleep(_PAUSE_S)
    raise ServerProgramError(f"the embedded PostgreSQL was not up within {START_TIMEOUT_S:g} s")


def _is_running(pid: int) -> bool:
    # Without reaping it, so that its number stays its own until it is stopped.
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGINT)
    give_up_s = time.monotonic() + STOP_TIMEOUT_S
    while _is_running(pid):
        if time.monotonic() > give_up_s:
            os.kill(pid, signal.SIGQUIT)  # the log is replayed at the next start
            break
        time.sleep(_PAUSE_S)
    os.waitpid(pid, 0)
