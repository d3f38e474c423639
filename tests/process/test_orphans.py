"""Nobody outlives the tree, whoever is killed; guests do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor import connect
from supervisor.posix.processes import children_of, descendants_of

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("no_process_left")]

ROOT = Path(__file__).resolve().parents[2]
LEVELS, LEFT_PER_LEVEL = 3, 4
GONE_WITHIN_S = 1.0
PATIENCE_S = 20.0


class Tree:
    """The running tree, and what is below its root."""

    def __init__(self, directory: Path, guest: Path) -> None:
        command = [sys.executable, "-m", "tests.process.orphan_tree", str(directory), str(guest)]
        self.root = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        self.directory = directory
        self.guest = guest

    def await_everybody(self) -> None:
        """Wait until each program and each guest runs.

        Orphans are ended while the tree runs, too: they may or may not be there.
        """
        wanted = LEVELS * (LEFT_PER_LEVEL + 1)
        _until(lambda: len(self.sleepers()) >= wanted and len(self.guests()) >= LEVELS)

    def everybody(self) -> list[int]:
        """All processes below the root."""
        return descendants_of(self.root.pid)

    def sleepers(self) -> list[int]:
        """The programs and what they left."""
        return [pid for pid in self.everybody() if _program(pid).endswith("/sleep")]

    def guests(self) -> list[int]:
        """The exempt processes of this tree, wherever they are now."""
        return [
            int(p.name)
            for p in Path("/proc").glob("[0-9]*")
            if _program(int(p.name)) == str(self.guest)
        ]

    def supervisor(self, path: str) -> int | None:
        """The process of a nested supervisor, while it has one."""
        with connect(self.directory) as client:
            (found,) = (c.pid for c in client.status().components if c.path == path)
        return found


@pytest.fixture
def tree() -> Iterator[Tree]:
    """A tree in which everybody has left something behind."""
    directory = Path(tempfile.mkdtemp(prefix="nc-", dir="/tmp"))  # sockets need a short path
    guest = directory / "guest"
    shutil.copy("/bin/sleep", guest)
    tree = Tree(directory / "state", guest)
    try:
        tree.await_everybody()
        yield tree
    finally:
        tree.root.kill()
        tree.root.wait()
        for pid in tree.guests():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(directory)


def test_a_killed_root_leaves_nobody_but_guests(tree: Tree) -> None:
    """SIGKILL of the root ends everything within a second; the guests run on."""
    below, guests = tree.everybody(), tree.guests()
    tree.root.kill()
    tree.root.wait()
    _gone(set(below) - set(guests))
    assert tree.guests() == guests


@pytest.mark.parametrize("path", ["outer", "outer/inner"])
def test_a_killed_supervisor_leaves_nobody_but_guests(tree: Tree, path: str) -> None:
    """SIGKILL of a nested supervisor ends what it supervised, on all levels below it."""
    below, guests = set(tree.everybody()), tree.guests()
    above = {pid for pid in below if f"{path}-" not in _title(pid)}
    victim = tree.supervisor(path)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    _until(lambda: tree.supervisor(path) not in (victim, None))
    _gone({pid for pid in below - above if pid not in guests} | {victim})
    assert set(guests) <= set(tree.guests())


def test_a_killed_launcher_leaves_nobody_but_guests(tree: Tree) -> None:
    """SIGKILL of the launcher ends everything below the root, which then starts it again."""
    below, guests = tree.everybody(), tree.guests()
    (launcher,) = children_of(tree.root.pid)
    os.kill(launcher, signal.SIGKILL)
    _gone(set(below) - set(guests))
    assert set(guests) <= set(tree.guests())
    tree.await_everybody()


def test_a_stop_leaves_nobody_but_guests(tree: Tree) -> None:
    """SIGTERM of the root ends the tree in order, and what was left behind with it."""
    below, guests = tree.everybody(), tree.guests()
    tree.root.terminate()
    assert tree.root.wait(PATIENCE_S) == 0
    _gone(set(below) - set(guests))
    assert tree.guests() == guests


def _gone(pids: set[int]) -> None:
    deadline_s = time.monotonic() + GONE_WITHIN_S
    while left := {pid: _title(pid) for pid in pids if _is_running(pid)}:
        assert time.monotonic() < deadline_s, left
        time.sleep(0.01)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _program(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        return ""


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def _until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.02)
