"""The embedded servers, prepared and executed as the supervisor does it."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from protocol.records import Plain
from services.data.embedded import prepare_postgres, prepare_redis
from services.data.errors import (
    ClusterDamagedError,
    ClusterVersionError,
    DirectoryError,
)
from supervisor.child.service import Command
from tests.fixtures.fix_postgres import SERVICE_USER, postgres_programs, unprivileged_dir

_PR_SET_PDEATHSIG = 1
_WAIT_S = 30.0
Prepare = Callable[[Mapping[str, Plain]], Command]


def _drop_privileges() -> None:
    if os.geteuid() == 0:
        account = pwd.getpwnam(SERVICE_USER)
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)


@dataclass
class Child:
    """A command child: prepared and executed in a process of the service user."""

    pid: int
    said: list[str] = field(default_factory=list)

    def end(self, number: signal.Signals) -> int:
        """Signal it and wait; its exit code, or the signal that ended it as a negative number."""
        os.kill(self.pid, number)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


class Host:
    """A state directory of the service user's, and the children started on it."""

    def __init__(self) -> None:
        self.directory = unprivileged_dir("nc-emb-")
        self._children: list[Child] = []

    def run(self, prepare: Prepare, settings: Mapping[str, Plain]) -> Child:
        """Start a command child and wait until it says READY=1."""
        notify = self.directory / "notify"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(str(notify))
            notify.chmod(0o666)
            receiver.settimeout(_WAIT_S)
            child = Child(os.fork())
            if child.pid == 0:
                _become(prepare, settings, notify)
            self._children.append(child)
            while "READY=1" not in child.said:
                child.said += receiver.recv(4096).decode().split("\n")
        return child

    def prepare(self, prepare: Prepare, settings: Mapping[str, Plain]) -> str:
        """Prepare only, as the service user; the error's class and sentence, or ""."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            text = ""
            try:
                _drop_privileges()
                prepare(settings)
            except BaseException as error:  # noqa: BLE001 - it travels to the test
                text = f"{type(error).__name__}: {error}"
            os.write(writer, text.encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            text = stream.read().decode()
        os.waitpid(pid, 0)
        return text

    def remove(self) -> None:
        """End what still runs and remove everything."""
        for child in self._children:
            try:
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue
        shutil.rmtree(self.directory)


def _become(prepare: Prepare, settings: Mapping[str, Plain], notify: Path) -> None:
    try:
        _drop_privileges()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        command = prepare(settings)
        environment = {**command.environment, "NOTIFY_SOCKET": str(notify)}
        os.execve(command.argv[0], command.argv, environment)
    except BaseException:  # noqa: BLE001 - a forked child must not return into pytest
        traceback.print_exc()
    os._exit(70)


@pytest.fixture
def host() -> Iterator[Host]:
    """An empty state directory."""
    made = Host()
    yield made
    made.remove()


def _postgres(host: Host) -> dict[str, Plain]:
    return {
        "directory": str(host.directory / "postgres"),
        "socket_dir": str(host.directory / "pg"),
        "users": [pwd.getpwuid(os.geteuid()).pw_name],
    }


def _query(host: Host, query: str, database: str = "postgres") -> object:
    dsn = f"host={host.directory / 'pg'} dbname={database} user=novacron"
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


@pytest.mark.postgres
@pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed")
class TestPostgres:
    """data/postgres."""

    def test_first_start_creates_and_says_ready_within_four_seconds(self, host: Host) -> None:
        """The node's user logs in over the socket; checksums and durability are on."""
        started = time.monotonic()

        child = host.run(prepare_postgres, _postgres(host))
        duration_s = time.monotonic() - started

        assert duration_s < 4.0
        assert _query(host, "SELECT current_user") == "novacron"
        assert _query(host, "SHOW data_checksums") == "on"
        assert _query(host, "SHOW fsync") == "on"
        assert _query(host, "SHOW listen_addresses") == ""
        assert child.end(signal.SIGINT) == 0

    def test_nobody_can_turn_durability_off_for_good(self, host: Host) -> None:
        """What ALTER SYSTEM leaves in the data directory has no say in it."""
        first = host.run(prepare_postgres, _postgres(host))
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            _query(host, f"ALTER SYSTEM SET {name} = off")
        assert first.end(signal.SIGINT) == 0

        host.run(prepare_postgres, _postgres(host))

        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            assert _query(host, f"SHOW {name}") == "on"

    def test_second_start_keeps_the_data_after_a_kill(self, host: Host) -> None:
        """What was committed is there after SIGKILL, and nothing was created anew."""
        first = host.run(prepare_postgres, _postgres(host))
        _query(host, "CREATE TABLE kept AS SELECT 42 AS answer")
        first.end(signal.SIGKILL)

        host.run(prepare_postgres, _postgres(host))

        assert _query(host, "SELECT answer FROM kept") == 42
        assert not list((host.directory / "postgres").glob("*.broken-*"))

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
    def test_account_that_is_not_listed_may_not_log_in(self, host: Host) -> None:
        """Peer authentication lets in the server's own account, and root only if listed."""
        host.run(prepare_postgres, {**_postgres(host), "users": []})

        with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
            _query(host, "SELECT 1")

    def test_half_written_directory_is_set_aside_and_made_anew(self, host: Host) -> None:
        """A directory that never finished is kept under another name and does not stop the boot."""
        data = host.directory / "postgres/data"
        (data / "base").mkdir(parents=True)
        (data / "PG_VERSION").write_text("15\n")
        (host.directory / "postgres/data.new").mkdir()
        if os.geteuid() == 0:
            for path in (data.parent, *data.parent.rglob("*")):
                shutil.chown(path, SERVICE_USER, SERVICE_USER)

        host.run(prepare_postgres, _postgres(host))

        aside = list(data.parent.glob("data.broken-*"))
        assert [path.name for path in aside[0].iterdir()] != []
        assert len(aside) == 1
        assert not (data.parent / "data.new").exists()
        assert _query(host, "SELECT 1") == 1

    def test_finished_directory_that_lost_a_file_is_refused_and_left_alone(
        self, host: Host
    ) -> None:
        """There was data in it: a person decides, not the program."""
        assert not host.prepare(prepare_postgres, _postgres(host))
        data = host.directory / "postgres/data"
        (data / "global/pg_control").unlink()
        before = sorted(str(path) for path in data.rglob("*"))

        error = host.prepare(prepare_postgres, _postgres(host))

        assert error.startswith(ClusterDamagedError.__name__)
        assert str(data) in error
        assert sorted(str(path) for path in data.rglob("*")) == before

    def test_data_directory_that_vanished_is_refused(self, host: Host) -> None:
        """Perhaps a disk is not mounted; an empty database in its place would hide that."""
        assert not host.prepare(prepare_postgres, _postgres(host))
        (host.directory / "postgres/data").rename(host.directory / "postgres/elsewhere")

        error = host.prepare(prepare_postgres, _postgres(host))

        assert error.startswith(ClusterDamagedError.__name__)
        assert "mount" in error

    def test_data_of_another_version_is_refused_with_both_versions(self, host: Host) -> None:
        """PostgreSQL can't read it, and says what is to be installed."""
        assert not host.prepare(prepare_postgres, _postgres(host))
        (host.directory / "postgres/data/PG_VERSION").write_text("9\n")

        error = host.prepare(prepare_postgres, _postgres(host))

        assert error.startswith(ClusterVersionError.__name__)
        assert "postgresql-9" in error

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs a directory of somebody else's")
    def test_directory_of_somebody_else_is_refused(self, host: Host) -> None:
        """The sentence names the directory and both users."""
        (host.directory / "postgres").mkdir(mode=0o700)

        error = host.prepare(prepare_postgres, _postgres(host))

        assert error.startswith(DirectoryError.__name__)
        assert "belongs to user 0" in error

    def test_socket_path_that_is_too_long_is_refused(self, host: Host) -> None:
        """Before anything is created."""
        settings = {**_postgres(host), "socket_dir": str(host.directory / ("x" * 90))}

        error = host.prepare(prepare_postgres, settings)

        assert error.startswith(DirectoryError.__name__)
        assert not (host.directory / "postgres").exists()


@pytest.mark.redis
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="Redis is not installed")
class TestRedis:
    """data/redis."""

    def test_starts_says_ready_and_stops_in_order(self, host: Host) -> None:
        """On its socket only; SIGTERM ends it with 0 and without its socket."""
        path = host.directory / "run/redis.sock"
        settings = {"directory": str(host.directory / "redis"), "socket": str(path)}

        child = host.run(prepare_redis, settings)

        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(5.0)
            client.connect(str(path))
            client.sendall(b"CONFIG GET maxmemory\r\n")
            assert b"67108864" in client.recv(200)
        assert child.end(signal.SIGTERM) == 0
        assert not path.exists()
