"""What a node says to its service manager, word by word, and the shipped unit."""

from __future__ import annotations

import itertools
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from protocol.names import run_dir
from tests.fixtures.fix_node import BOOT_TIMEOUT_S, ROOT, Node, wait_until

UNIT = ROOT / "etc/systemd/novacron.service"
EXPOSURE_MAX = 3.0
_BYTES_MAX = 4096
_CREDENTIALS_BYTES = 12
# Python's socket module lacks it: the kernel's real time of each datagram's arrival.
_SO_TIMESTAMPNS = 35
_TIMESPEC_BYTES = 16
# What a shell does before it becomes the node: systemd knows the process id, a test does not.
_WITH_OWN_PID = ("/bin/sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh")

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.redis]


@dataclass(frozen=True, slots=True)
class Told:
    """One datagram: its lines, when it came (wall clock), and from whom."""

    lines: tuple[str, ...]
    at_s: float
    pid: int


class Listener:
    """The service manager's end: hears everything that is said on NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.told: list[Told] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.settimeout(0)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def hear(self, seconds: float = 0.0) -> list[Told]:
        """Take in what comes within a time; returns everything heard so far."""
        deadline_s = time.monotonic() + seconds
        while select.select([self._socket], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
            room = socket.CMSG_SPACE(_CREDENTIALS_BYTES) + socket.CMSG_SPACE(_TIMESPEC_BYTES)
            data, ancillary, _flags, _address = self._socket.recvmsg(_BYTES_MAX, room)
            found = {kind: value for _level, kind, value in ancillary}
            stamp = found[_SO_TIMESTAMPNS]
            at_s = int.from_bytes(stamp[:8], "little") + int.from_bytes(stamp[8:], "little") / 1e9
            pid = int.from_bytes(found[socket.SCM_CREDENTIALS][:4], "little")
            self.told.append(Told(tuple(data.decode().split("\n")), at_s, pid))
        return self.told

    def times(self, line: str) -> list[float]:
        """When a line was heard."""
        return [told.at_s for told in self.hear() if line in told.lines]

    def lines(self) -> list[str]:
        """Every line that was heard, the watchdog's left out."""
        return [line for told in self.hear() for line in told.lines if line != "WATCHDOG=1"]

    def wait(self, line: str, timeout_s: float = BOOT_TIMEOUT_S) -> float:
        """Wait for a line; returns when it was heard first."""
        deadline_s = time.monotonic() + timeout_s
        while not (found := self.times(line)):
            assert time.monotonic() < deadline_s, f"{line}: not told in {timeout_s} s: {self.told}"
            self.hear(0.1)
        return found[0]

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A service manager on a path."""
    listening = Listener(f"/tmp/novacron-notify-{os.getpid()}")
    yield listening
    listening.close()
    Path(listening.address).unlink()


@pytest.fixture
def told_node(make_node: Callable[..., Node], listener: Listener) -> Node:
    """A node, not started yet, that talks to the listener."""
    return make_node(NOTIFY_SOCKET=listener.address)


def test_ready_is_said_once_and_not_before_the_boot_is_over(
    told_node: Node, listener: Listener
) -> None:
    """READY=1 comes after init:complete, once, and all that is said comes from the root."""
    node = told_node.start(wait=False)

    ready_s = listener.wait("READY=1")
    node.wait_ready()
    complete_s = next(r["time_s"] for r in node.journal() if r["name"] == "init:complete")
    listener.hear(1.0)

    assert complete_s <= ready_s
    assert len(listener.times("READY=1")) == 1
    assert {told.pid for told in listener.told} == {node.pid}
    assert listener.lines()[-1] == "STATUS=ready"


def test_the_phases_are_told_in_order(told_node: Node, listener: Listener) -> None:
    """STATUS names each phase that has components, in order, and what it waits for."""
    told_node.start(wait=False)
    listener.wait("READY=1")
    told_node.wait_ready()

    said = listener.lines()
    before = said[: said.index("READY=1")]
    found = [re.fullmatch(r"STATUS=phase (\d) ([a-z]+)(: .+)?", line) for line in before]
    phases = [(match[1], match[2]) for match in found if match is not None]

    assert None not in found, before
    assert [phase for phase, _group in itertools.groupby(phases)] == [
        ("2", "logging"),
        ("3", "database"),
        ("4", "core"),
        ("5", "optional"),
        ("6", "health"),
    ]
    assert any(match is not None and match[3] for match in found)


def test_a_busy_manager_is_told_later(told_node: Node, listener: Listener) -> None:
    """Its queue is full when the boot ends: READY=1 and the last sentence wait for room."""
    told_node.start()
    time.sleep(0.2)  # nothing is read yet, and the kernel holds a handful of datagrams

    listener.wait("READY=1", 1.0)
    listener.wait("STATUS=ready", 1.0)

    assert listener.lines()[-2:] == ["READY=1", "STATUS=ready"]


def test_a_later_loss_is_told(told_node: Node, listener: Listener) -> None:
    """A component that was stopped shows in STATUS, by name."""
    node = told_node.start()
    listener.wait("STATUS=ready")

    node.ctl("stop", "optional")

    wait_until(
        lambda: [line for line in listener.lines() if re.match("STATUS=.*: .*optional", line)],
        f"told: {listener.told[-3:]}",
    )


def test_the_watchdog_is_fed_by_the_root_alone(told_node: Node, listener: Listener) -> None:
    """Twice per interval while the root's loop turns; nothing while it stands still."""
    told_node.environ["WATCHDOG_USEC"] = "1000000"
    node = told_node.start(wait=False, prefix=_WITH_OWN_PID)
    listener.wait("READY=1")
    listener.hear(3.0)

    fed = listener.times("WATCHDOG=1")
    gaps = [after - before for before, after in itertools.pairwise(fed)]
    assert max(gaps) < 1.0, gaps
    assert 0.4 < sorted(gaps)[len(gaps) // 2] < 0.7, gaps

    os.kill(node.pid, signal.SIGSTOP)
    listener.hear(0.2)
    before = len(listener.told)
    listener.hear(1.5)
    assert len(listener.told) == before
    os.kill(node.pid, signal.SIGCONT)
    wait_until(lambda: len(listener.times("WATCHDOG=1")) > len(fed) + 1, "fed again", 2.0)


def test_the_watchdog_of_another_process_is_not_fed(told_node: Node, listener: Listener) -> None:
    """WATCHDOG_PID names somebody else, so the interval is not ours."""
    told_node.environ.update(WATCHDOG_USEC="200000", WATCHDOG_PID=str(os.getpid()))
    told_node.start()
    listener.hear(1.0)

    assert listener.times("READY=1")
    assert listener.times("WATCHDOG=1") == []


def test_a_reload_begins_and_ends(told_node: Node, listener: Listener) -> None:
    """RELOADING=1 with the monotonic time in one datagram, then READY=1; also when refused."""
    node = told_node
    directory = node.directory / "etc"
    shutil.copytree(ROOT / "etc/novacron", directory)
    node.flags = ["--config-dir", str(directory)]
    node.start()
    listener.wait("STATUS=ready")

    for number in (1, 2):
        before_us = time.monotonic_ns() // 1000
        os.kill(node.pid, signal.SIGHUP)
        wait_until(lambda n=number: len(listener.times("READY=1")) == 1 + n, "ready", 20.0)

        begun = [told for told in listener.told if "RELOADING=1" in told.lines]
        assert len(begun) == number
        name, _, stamp = begun[-1].lines[1].partition("=")
        assert name == "MONOTONIC_USEC"
        assert before_us <= int(stamp) <= time.monotonic_ns() // 1000
        assert begun[-1].at_s <= listener.times("READY=1")[-1]
        (directory / "config.embedded.yaml").write_text("api: {prot: 1}\n")
    names = [record["name"] for record in node.journal()]
    assert names[-2:] == ["node:reloaded", "node:reload-refused"]


def test_a_reload_during_the_boot_does_not_end_it(told_node: Node, listener: Listener) -> None:
    """SIGHUP before the node is up: READY=1 is still said once, after init:complete."""
    node = told_node.start(wait=False)
    wait_until(listener.lines, "the first status", BOOT_TIMEOUT_S)

    os.kill(node.pid, signal.SIGHUP)
    ready_s = listener.wait("READY=1")
    node.wait_ready()
    wait_until(lambda: any(r["name"] == "node:reloaded" for r in node.journal()), "reloaded", 20.0)

    complete_s = next(r["time_s"] for r in node.journal() if r["name"] == "init:complete")
    assert complete_s <= ready_s
    assert len(listener.times("READY=1")) == 1


def test_a_stop_is_told_first_and_once(told_node: Node, listener: Listener) -> None:
    """SIGTERM: STOPPING=1 at once, and not READY=1 again, even when a reload is under way."""
    node = told_node.start()
    listener.wait("STATUS=ready")
    asked_s = time.time()

    os.kill(node.pid, signal.SIGHUP)
    assert node.stop() == 0

    stopping_s = listener.times("STOPPING=1")
    assert len(stopping_s) == 1
    assert stopping_s[0] - asked_s < 0.5
    assert all(at_s < stopping_s[0] for at_s in listener.times("READY=1"))


def test_a_stop_during_the_boot_is_told(told_node: Node, listener: Listener) -> None:
    """SIGTERM before the node is up: STOPPING=1, exit code 0, and never READY=1."""
    node = told_node.start(wait=False)
    wait_until(listener.lines, "the first status", BOOT_TIMEOUT_S)

    assert node.stop() == 0

    assert len(listener.times("STOPPING=1")) == 1
    assert listener.times("READY=1") == []


def test_an_abstract_socket_is_understood(make_node: Callable[..., Node]) -> None:
    """An address that begins with @ has no file."""
    listening = Listener(f"@novacron-notify-{os.getpid()}")
    try:
        make_node(NOTIFY_SOCKET=listening.address).start()

        assert listening.wait("READY=1")
    finally:
        listening.close()


def test_a_manager_that_has_gone_is_no_reason_to_fail(make_node: Callable[..., Node]) -> None:
    """Nobody listens on NOTIFY_SOCKET: the node boots and stops as ever."""
    node = make_node(NOTIFY_SOCKET="/tmp/novacron-nobody-listens").start()

    assert node.stop() == 0


def test_no_command_of_the_tree_inherits_the_socket(told_node: Node, listener: Listener) -> None:
    """PostgreSQL has its supervisor's socket, and nothing that is meant for the root."""
    told_node.environ["WATCHDOG_USEC"] = "10000000"
    node = told_node.start()
    pid = node.component("data/postgres").pid

    variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")

    sockets = [line for line in variables if line.startswith("NOTIFY_SOCKET=")]
    assert sockets == [f"NOTIFY_SOCKET={run_dir(node.state_dir)}/data.notify"]
    assert [line for line in variables if line.startswith("WATCHDOG")] == []


def unit_here(directory: Path) -> Path:
    """The shipped unit, for a node that is installed where this checkout is."""
    file = directory / "novacron.service"
    file.write_text(UNIT.read_text().replace("/opt/novacron/", f"{ROOT}/"))
    return file


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, which needs no running systemd for this."""
    if (program := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not installed (package systemd)")
    return subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": os.environ["PATH"], "SYSTEMD_COLORS": "0", "LC_ALL": "C.UTF-8"},
    )


def test_the_unit_is_valid(tmp_path: Path) -> None:
    """Not one complaint of systemd about it."""
    verified = systemd_analyze("verify", str(unit_here(tmp_path)))

    complaints = [line for line in verified.stderr.splitlines() if "novacron" in line]
    assert (verified.returncode, complaints) == (0, [])


def test_the_unit_is_hardened() -> None:
    """The exposure that systemd computes stays within what is allowed, 3.0 of 10."""
    judged = systemd_analyze(
        "security", "--offline=yes", "--no-pager", f"--threshold={EXPOSURE_MAX * 10:.0f}", str(UNIT)
    )

    level = re.search(r"Overall exposure level for novacron.service: ([0-9.]+)", judged.stdout)
    assert level is not None, judged.stderr
    assert float(level[1]) <= EXPOSURE_MAX
    assert judged.returncode == 0


def test_the_unit_gives_the_tree_time_to_stop() -> None:
    """TimeoutStopSec is longer than the shutdown timeout, so that systemd never interferes."""
    setting = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    default = re.search(
        r"^  shutdownTimeout: (\d+)s$",
        (ROOT / "etc/novacron/config.default.yaml").read_text(),
        re.MULTILINE,
    )

    assert setting is not None
    assert default is not None
    assert int(setting[1]) > int(default[1])
