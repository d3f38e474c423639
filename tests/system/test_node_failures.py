"""A node that can't do its work says so, with the exit code that its operators rely on."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from protocol.messages.status import Verdict
from tests.fixtures.fix_node import ROOT, Node, wait_until

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.redis]

SERVICE_USER = "novacron-data"


def own_configuration(node: Node) -> Path:
    """Give a node its own copy of the configuration files; returns their directory."""
    directory = node.directory / "etc"
    directory.mkdir()
    for source in (ROOT / "etc/novacron").glob("config.*.yaml"):
        (directory / source.name).write_bytes(source.read_bytes())
    node.flags = ["--config-dir", str(directory)]
    return directory


def append(file: Path, text: str) -> None:
    """Add lines to a configuration file."""
    file.write_text(file.read_text() + text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("api:\n  prot: 8080\n", ["config.embedded.yaml:", "api.prot", "api.port"]),
        ("vm:\n  libvirtUri: 7\n", ["config.embedded.yaml:", "vm.libvirtUri", "7"]),
        ("system:\n  shutdownTimeout: 30\n", ["system.shutdownTimeout", "30"]),
        ("dwcp:\n  transport:\n    minStreams: 64\n", ["minStreams", "64"]),
        ("api: [\n", ["config.embedded.yaml:"]),
    ],
)
def test_a_bad_configuration_is_exit_2_and_says_where(
    make_node: Callable[..., Node], text: str, expected: list[str]
) -> None:
    """File, line, key, found value and what is expected; nothing was created."""
    node = make_node(fresh=True)
    (own_configuration(node) / "config.embedded.yaml").write_text(text)

    code = node.run_to_end()

    assert code == 2, node.errors
    for part in expected:
        assert part in node.errors
    assert not node.state_dir.exists()


def test_an_unknown_variable_is_exit_2(make_node: Callable[..., Node]) -> None:
    """A misspelt variable must not be silently ignored."""
    node = make_node(NOVACRON_API_PROT="1")

    assert node.run_to_end() == 2
    assert "NOVACRON_API_PORT" in node.errors


def test_a_used_port_is_exit_1_and_says_which(make_node: Callable[..., Node]) -> None:
    """The key and the process that has the port are named."""
    node = make_node()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", node.ports[0]))
        holder.listen()

        code = node.run_to_end()

    assert code == 1
    assert "api.port" in node.errors
    assert str(os.getpid()) in node.errors


def test_a_newer_schema_is_exit_3(make_node: Callable[..., Node]) -> None:
    """A database of a later version is not touched; the message says what to do."""
    node = make_node().start()
    socket_dir = node.state_dir / "run" / "pg"
    with psycopg.connect(host=str(socket_dir), dbname="novacron", user="novacron") as connection:
        columns = connection.execute(
            "select column_name from information_schema.columns"
            " where table_name = 'schema_migrations' order by ordinal_position"
        ).fetchall()
        assert columns
        connection.execute(
            "insert into schema_migrations select 9999, "
            + ", ".join(name for (name,) in columns[1:])
            + " from schema_migrations limit 1"
        )
    node.stop()

    code = node.run_to_end()

    assert code == 3
    assert "9999" in node.output + node.errors


def test_a_refused_password_is_exit_3_at_once(
    make_node: Callable[..., Node], postgres_server: object
) -> None:
    """No five attempts for what no attempt can change."""
    node = make_node(
        NOVACRON_DATABASE_MODE="external",
        NOVACRON_DATABASE_POSTGRES_HOST=str(postgres_server.socket_dir),  # type: ignore[attr-defined]  # a fixture's object
        NOVACRON_DATABASE_POSTGRES_USER="nobody_here",
        NOVACRON_DATABASE_POSTGRES_SSLMODE="disable",
    )
    started_s = time.monotonic()

    code = node.run_to_end()

    assert code == 3, node.output + node.errors[-2000:]
    assert "nobody_here" in node.output + node.errors
    assert time.monotonic() - started_s < 10


def test_a_database_that_never_answers_is_exit_3_after_five_attempts(
    make_node: Callable[..., Node],
) -> None:
    """Five attempts with pauses of 2, 4, 8 and 16 s are the stated limit."""
    node = make_node(
        NOVACRON_DATABASE_MODE="external",
        NOVACRON_DATABASE_POSTGRES_HOST="127.0.0.1",
        NOVACRON_DATABASE_POSTGRES_PORT="9",
        NOVACRON_DATABASE_POSTGRES_SSLMODE="disable",
    )
    started_s = time.monotonic()
    node.start(wait=False)
    assert node.process is not None

    code = node.process.wait(50)

    assert code == 3, node.output + node.errors[-2000:]
    assert 29 <= time.monotonic() - started_s < 45


def test_missing_redis_degrades_the_node(make_node: Callable[..., Node]) -> None:
    """The node comes up, is degraded, and says why; novacronctl's exit code is 1."""
    node = make_node()
    node.start(
        prefix=(
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount --bind /bin/false /usr/bin/redis-server && exec "$@"',
            "sh",
        )
    )

    status = node.status()

    assert status.verdict is Verdict.DEGRADED
    assert "redis" in status.reason or "cache" in status.reason
    shown = node.ctl("status")
    assert shown.returncode == 1
    assert "degraded" in shown.stdout.splitlines()[0]


def test_missing_libvirt_degrades_the_node(make_node: Callable[..., Node]) -> None:
    """Without a hypervisor the platform is up, degraded, and names the socket that is missing."""
    node = make_node(
        NOVACRON_VM_LIBVIRTURI="qemu+unix:///system?socket=/nonexistent/libvirt-sock"
    ).start()

    status = node.status()

    assert status.verdict is Verdict.DEGRADED
    assert "/nonexistent/libvirt-sock" in node.component("core/vm").reason


def test_redis_lost_at_run_time_degrades_and_recovers(node: Node) -> None:
    """Losing the cache is no error to anybody."""
    pid = node.component("data/redis").pid
    assert pid is not None

    os.kill(pid, signal.SIGKILL)

    wait_until(lambda: node.component("data/redis").pid not in (None, pid), "redis back")
    wait_until(lambda: node.status().verdict is Verdict.READY, "ready again")
    assert node.component("data/database").restarts == 0


def test_a_component_that_keeps_dying_ends_the_node_with_exit_5(node: Node) -> None:
    """Past the restart intensity the tree stops in order; nothing is left."""
    processes = node.processes()
    assert node.process is not None

    def kill_security() -> bool:
        assert node.process is not None
        if node.process.poll() is not None:
            return True
        try:
            pid = node.component("security").pid
        except Exception:  # noqa: BLE001 - the node is going down, which is what we wait for
            return False
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it went down with the node meanwhile
                os.kill(pid, signal.SIGKILL)
        return False

    wait_until(kill_security, "escalation", 40.0)

    assert node.process.returncode == 5
    assert "security" in node.output
    assert len(processes) > 20


def test_an_unwritable_log_directory_falls_back_to_the_console(
    make_node: Callable[..., Node],
) -> None:
    """The node runs, and the console has the log and the reason."""
    node = make_node()
    blocker = node.directory / "blocker"
    blocker.write_text("a file, not a directory\n")
    node.environ["NOVACRON_SYSTEM_LOGDIR"] = str(blocker / "logs")

    node.start()

    assert node.status().verdict is Verdict.READY
    assert "log_files_unavailable" in node.errors


def test_a_stop_during_the_boot_is_clean(make_node: Callable[..., Node]) -> None:
    """SIGTERM at any moment of the boot ends it without leaving anything."""
    for delay_s in (0.05, 0.3, 0.6, 0.9, 1.2):
        node = make_node().start(wait=False)
        time.sleep(delay_s)
        assert node.process is not None

        node.process.send_signal(signal.SIGTERM)

        code = node.process.wait(20)
        assert code in (0, -signal.SIGTERM), (delay_s, node.output, node.errors[-1000:])


def test_the_embedded_servers_run_without_privileges(node: Node) -> None:
    """PostgreSQL and Redis never run as root."""
    if os.geteuid() != 0:
        pytest.skip("needs root: an ordinary user's node has one account anyway")
    for path in ("data/postgres", "data/redis"):
        pid = node.component(path).pid
        owner = subprocess.run(
            ["stat", "-c", "%U", f"/proc/{pid}"], capture_output=True, text=True, check=True
        )
        assert owner.stdout.strip() == SERVICE_USER
        groups = Path(f"/proc/{pid}/status").read_text().partition("\nGroups:")[2].split("\n")[0]
        assert str(grp.getgrnam("novacron").gr_gid) not in groups.split()


def test_a_compromised_embedded_server_can_not_command_the_node(node: Node) -> None:
    """Its account is no operator: neither identity, keys, sockets nor logs are open to it."""
    if os.geteuid() != 0:
        pytest.skip("needs root: an ordinary user's node has one account anyway")
    run = node.state_dir / "run"
    become = ["setpriv", "--reuid", SERVICE_USER, "--regid", SERVICE_USER, "--clear-groups", "--"]

    def attempt(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*become, *map(str, command)], capture_output=True, text=True, check=False
        )

    groups = os.getgrouplist(SERVICE_USER, pwd.getpwnam(SERVICE_USER).pw_gid)
    ask = "import socket, sys; socket.socket(1, 5).connect(sys.argv[1])"
    identity = attempt(sys.executable, "-I", "-c", ask, run / "identity.sock")
    listings = [attempt("ls", path) for path in (node.state_dir, run, node.state_dir / "logs")]

    assert grp.getgrnam("novacron").gr_gid not in groups
    assert (run / "identity.sock").exists()
    assert identity.returncode != 0
    assert "Permission denied" in identity.stderr
    assert [listing.returncode for listing in listings] == [2, 2, 2]
    # What it may open by its name: its own, and the sockets that check who sends.
    for path in node.state_dir.rglob("*"):
        found = path.lstat()
        if path != run and path.suffix != ".notify" and not path.is_symlink():
            theirs = path.owner() == SERVICE_USER
            assert theirs or not found.st_mode & 0o007, (path, oct(found.st_mode))


def test_data_of_another_account_is_exit_1_and_says_what_to_do(
    make_node: Callable[..., Node],
) -> None:
    """PostgreSQL insists on owning its data: the message hands it over, and that is enough."""
    if os.geteuid() != 0:
        pytest.skip("needs root: an ordinary user's node has one account anyway")
    node = make_node().start()
    assert node.stop() == 0
    data = f"{node.state_dir}/postgres {node.state_dir}/redis"
    subprocess.run(["chown", "-R", "novacron:", *data.split()], check=True)

    code = node.run_to_end()

    assert code == 1
    assert f"chown -R {SERVICE_USER}: {data}, or" in node.errors
    subprocess.run(["chown", "-R", f"{SERVICE_USER}:", *data.split()], check=True)
    node.start()
    assert node.status().verdict is Verdict.READY
