"""Commands as processes: when they count as up, and how their failures to start are told."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.core.readiness import EXEC, NOTIFY, Readiness, ReadinessKind, parse
from supervisor.core.spec import ChildSpec, RestartType
from tests.process.command_tree import CommandTree, command, open_directory

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("no_process_left")]

# What each program does before it is up takes it so long.
DELAY_S = 0.3
SLEEP = ("/bin/sleep", "1000")
SHELL = "/bin/sh"


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory for programs that other accounts execute."""
    with open_directory() as directory:
        yield directory


def _python(name: str, program: str, readiness: Readiness, *arguments: str) -> ChildSpec:
    head = f"import os, socket, sys, time; time.sleep({DELAY_S})\n"
    argv = (sys.executable, "-S", "-c", f"{head}{program}\ntime.sleep(1000)", *arguments)
    return command(name, *argv, readiness=readiness)


NOTIFYING = """
path = os.environ["NOTIFY_SOCKET"]
said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
said.sendto(sys.argv[1].encode(), path)
"""


def test_each_kind_of_readiness_is_seen(tmp_path: Path) -> None:
    """Notify socket, port, Unix sockets and log line: up after it happened, soon after."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    listen = "s = socket.socket(socket.AF_UNIX, socket.{}); s.bind(sys.argv[1])"
    stream, datagram = tmp_path / "stream.sock", tmp_path / "datagram.sock"
    children = [
        _python("notify", NOTIFYING, NOTIFY, "READY=1"),
        _python(
            "tcp",
            "s = socket.create_server(('127.0.0.1', int(sys.argv[1])))",
            parse(f"tcp:{port}"),
            str(port),
        ),
        _python(
            "stream",
            listen.format("SOCK_STREAM") + "; s.listen()",
            parse(f"unix:{stream}"),
            str(stream),
        ),
        _python("datagram", listen.format("SOCK_DGRAM"), parse(f"unix:{datagram}"), str(datagram)),
        _python("log", "print('not yet\\nlistening on 1', flush=True)", parse("log:^listening")),
    ]
    with CommandTree(tmp_path, *children) as tree:
        for child in children:
            record = tree.until_up(child.id)
            took_s = record["up_s"] - record["started_s"]
            assert DELAY_S <= took_s < DELAY_S + 2.0


def test_a_program_is_up_once_it_is_executed(tmp_path: Path) -> None:
    """Readiness exec waits for the program itself and for nothing that it does."""
    with CommandTree(tmp_path, command("sleeper", *SLEEP)) as tree:
        record = tree.until_up("sleeper")
        assert Path(f"/proc/{record['pid']}/comm").read_text() == "sleep\n"


@pytest.mark.parametrize("user", ["", "nobody"])
def test_a_program_that_is_done_at_once_has_been_up(tmp_path: Path, user: str) -> None:
    """A job that ends before anybody looked has ended, and has not failed to start."""
    if user and os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    job = command("job", "/bin/true", user=user, restart=RestartType.TRANSIENT)
    failing = command("failing", "/bin/false", user=user, restart=RestartType.TRANSIENT)
    with CommandTree(tmp_path, job, failing) as tree:
        tree.until("job", lambda record: record["state"] == "stopped")
        assert tree.until_failed("job") == "normal"
        assert tree.until_failed("failing") == "crashed: exit code 1"


def test_a_line_of_an_earlier_process_makes_nobody_ready(tmp_path: Path) -> None:
    """Only what the process itself writes counts."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "mute.log").write_text("ready\n")
    mute = command("mute", *SLEEP, readiness=parse("log:ready"), start_timeout_s=0.3)
    with CommandTree(tmp_path, mute) as tree:
        assert tree.until_failed("mute") == "start_failed: not ready within 0.3 s"


def test_a_line_must_be_whole(tmp_path: Path) -> None:
    """A pattern is not searched in what may yet become another line."""
    program = "printf 'port 80'; sleep 0.2; printf '80\\n'; sleep 0.2; echo port 80; sleep 1000"
    child = command("half", SHELL, "-c", program, readiness=parse("log:port 80$"))
    with CommandTree(tmp_path, child) as tree:
        record = tree.until_up("half")
        assert record["up_s"] - record["started_s"] >= 0.4


@pytest.mark.parametrize("has_user", [False, True])
def test_a_program_that_cannot_be_executed_fails_at_once(
    open_path: Path, *, has_user: bool
) -> None:
    """Missing, not executable, of no format, without interpreter: each is said in a sentence."""
    if has_user and os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    text, mode, lost = open_path / "text", open_path / "mode", open_path / "lost"
    text.write_text("echo no first line\n")
    lost.write_text("#!/no/such/shell\n")
    mode.write_text("#!/bin/sh\n")
    text.chmod(0o755)
    lost.chmod(0o755)
    expected = {
        "missing": ("/no/such/program", "/no/such/program: No such file or directory"),
        "text": (str(text), f"{text}: Exec format error"),
        "mode": (str(mode), f"{mode}: Permission denied"),
        "lost": (str(lost), f"{lost}: its interpreter /no/such/shell can't be executed"),
        "folder": (str(open_path), f"{open_path}: Is a directory"),
    }
    user = "nobody" if has_user else ""
    children = [
        command(name, program, user=user, readiness=NOTIFY)
        for name, (program, _) in expected.items()
    ]
    with CommandTree(open_path, *children) as tree:
        for name, (_, sentence) in expected.items():
            assert tree.until_failed(name) == f"start_failed: {sentence}"


def test_a_missing_user_or_directory_fails_at_once(tmp_path: Path) -> None:
    """What the process can't be set to is a failure to start with its own sentence."""
    children = [
        command("user", *SLEEP, user="no-such-user"),
        command("directory", *SLEEP, settings={"directory": "/no/such"}),
        command("shape", *SLEEP, settings={"umask": -1}),
    ]
    with CommandTree(tmp_path, *children) as tree:
        assert tree.until_failed("user") == "start_failed: there is no user no-such-user"
        assert "/no/such: No such file or directory" in tree.until_failed("directory")
        assert tree.until_failed("shape") == "start_failed: umask is -1; 0 to 0o777"


def test_a_command_says_how_it_is(tmp_path: Path) -> None:
    """STATUS= is shown beside the state; a flood of it costs the supervisor a few reports."""
    flood = f"{NOTIFYING}for n in range(3000): said.sendto(b'STATUS=%d done' % n, path)"
    child = _python("talker", flood, NOTIFY, "READY=1\nSTATUS=warm\nSTOPPING=1\nMAINPID=1")
    with CommandTree(tmp_path, child) as tree:
        tree.until("talker", lambda record: record["reason"] == "2999 done")
        assert len(tree.history) < 20


def test_a_silent_command_is_killed_when_it_has_a_watchdog(tmp_path: Path) -> None:
    """WATCHDOG=1 keeps it alive, at the pace that WATCHDOG_USEC says; then its silence ends it."""
    program = f"""{NOTIFYING}
assert os.environ["WATCHDOG_USEC"] == "400000"
for _ in range(10):
    time.sleep(0.1)
    said.sendto(b"WATCHDOG=1", path)
"""
    child = _python("dog", program, Readiness(watchdog_s=0.4), "READY=1")
    with CommandTree(tmp_path, child) as tree:
        started_s = tree.until_up("dog")["up_s"]
        assert tree.until_failed("dog").startswith("unresponsive")
        assert 1.3 <= time.monotonic() - started_s < 4.0


def test_a_command_without_a_watchdog_may_be_silent(tmp_path: Path) -> None:
    """The liveness of Python children, which a specification has by itself, is not for it."""
    with CommandTree(tmp_path, command("sleeper", *SLEEP)) as tree:
        pid = tree.until_up("sleeper")["pid"]
        time.sleep(0.3)
        assert tree.records["sleeper"]["pid"] == pid


def test_the_kinds_are_those_that_are_tested() -> None:
    """A new kind needs a case above."""
    assert {kind.value for kind in ReadinessKind} == {"notify", "exec", "tcp", "unix", "log"}
    assert EXEC.kind is ReadinessKind.EXEC
