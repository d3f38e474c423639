"""The launcher as processes: what it forks, what it guards, and what it lets nobody wait for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from protocol.transports import identities
from protocol.transports.curve import key_pair, publish
from supervisor.core.spec import ChildSpec, ChildType, SupervisorSpec
from supervisor.guard.issuer import Issuer
from supervisor.posix.board import Board
from supervisor.posix.processes import children_of, descendants_of
from supervisor.runtime.launch import IDENTITY_S, Launch, TreeSettings
from supervisor.runtime.launcher_client import Ended, Launched, LauncherClient, Notice

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("no_process_left")]

SECRET = bytes(32)
PATIENCE_S = 10.0

N = TypeVar("N", bound=Notice)


@pytest.fixture
def client() -> Iterator[LauncherClient]:
    """A launcher that was started for the test; this process is its root."""
    client = LauncherClient.execute("test")
    yield client
    client.end()
    assert not Path(f"/proc/{client.pid}").exists()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run directory in which the root's key is published, but where nobody listens."""
    identities.prepare(tmp_path)
    publish(tmp_path, "novacron", key_pair(SECRET, "novacron").public)
    return tmp_path


def test_a_second_child_is_the_spare(client: LauncherClient, run_dir: Path) -> None:
    """Once a spare waits, the next child is that process, and another spare follows."""
    board = Board()
    client.launch(_empty(run_dir, "first"), board)
    _await(client, Launched)
    spare = _await_spare(client, but=1)
    client.launch(_empty(run_dir, "second"), board)
    second = _await(client, Launched)
    assert second.pid == spare
    assert _await_spare(client, but=2) != spare


def test_the_end_of_a_child_is_reported_with_its_signal(
    client: LauncherClient, run_dir: Path
) -> None:
    """A killed child is reaped and reported once, with its incarnation."""
    client.launch(_command(run_dir, "victim"), Board())
    launched = _await(client, Launched)
    _await_program(launched.pid)
    os.kill(launched.pid, signal.SIGKILL)
    ended = _await(client, Ended)
    assert ended == Ended("victim", 1, -signal.SIGKILL)


def test_a_child_inherits_no_descriptor(client: LauncherClient, run_dir: Path) -> None:
    """A program has its three standard streams and nothing of the launcher or its siblings."""
    board = Board()
    for name in ("first", "second", "third"):
        client.launch(_command(run_dir, name), board)
        launched = _await(client, Launched)
        _await_program(launched.pid)
        # For a moment the program's loader has its libraries open.
        _until(partial(_has_descriptors, launched.pid, {"0", "1", "2"}))


def test_a_killed_supervisor_takes_all_levels_below_it_along(
    client: LauncherClient, run_dir: Path
) -> None:
    """SIGKILL of a nested supervisor ends its own nested supervisors' children too, at once."""
    client.launch(_nest(run_dir), Board())
    supervisor = _await(client, Launched)
    programs = _await_programs(client, 2)
    os.kill(supervisor.pid, signal.SIGKILL)
    ended = _await(client, Ended)
    assert ended.id == "outer"
    # Reported only after everything below has gone, so that a successor finds the place empty.
    assert not [pid for pid in programs if Path(f"/proc/{pid}").exists()]


def test_a_stopped_supervisor_keeps_nobody_waiting(client: LauncherClient, run_dir: Path) -> None:
    """While one supervisor does not read its channel, another's children start as ever."""
    board = Board()
    client.launch(_nest(run_dir), board)
    supervisor = _await(client, Launched)
    programs = _await_programs(client, 2)
    os.kill(supervisor.pid, signal.SIGSTOP)
    for pid in programs:
        os.kill(pid, signal.SIGKILL)
    client.launch(_command(run_dir, "other"), board)
    assert _await(client, Launched).id == "other"


def test_everything_ends_with_a_killed_launcher(client: LauncherClient, run_dir: Path) -> None:
    """SIGKILL of the launcher leaves none of its children."""
    client.launch(_nest(run_dir), Board())
    _await(client, Launched)
    _await_programs(client, 2)
    below = descendants_of(client.pid)
    os.kill(client.pid, signal.SIGKILL)
    _until(lambda: not [pid for pid in below if _is_running(pid)])


def _command(run_dir: Path, name: str) -> Launch:
    return _launch(run_dir, _sleeper(name))


def _sleeper(name: str) -> ChildSpec:
    return ChildSpec(
        id=name,
        start="supervisor.child.command:prepare",
        type=ChildType.COMMAND,
        settings={"argv": ["/bin/sleep", "1000"]},
        liveness=None,
    )


def _empty(run_dir: Path, name: str) -> Launch:
    """A supervisor without children, which is the smallest Python child."""
    spec = ChildSpec(id=name, type=ChildType.SUPERVISOR, children=SupervisorSpec())
    return _launch(run_dir, spec)


def _nest(run_dir: Path) -> Launch:
    """Two supervisors, one in the other, each with a program."""
    inner = ChildSpec(
        id="inner",
        type=ChildType.SUPERVISOR,
        depends_on=(),
        children=SupervisorSpec(children=(_sleeper("deep"),)),
    )
    outer = ChildSpec(
        id="outer",
        type=ChildType.SUPERVISOR,
        children=SupervisorSpec(children=(_sleeper("program"), inner)),
    )
    return _launch(run_dir, outer)


def _launch(run_dir: Path, spec: ChildSpec) -> Launch:
    keys = key_pair(SECRET, spec.id)
    grant = Issuer(run_dir, IDENTITY_S).issue(spec.id, 1)
    return Launch(
        tree=TreeSettings(run_dir=str(run_dir)),
        spec=spec,
        incarnation=1,
        path=spec.id,
        supervisor_path="novacron",
        slot=0,
        public_key=keys.public,
        secret_key=keys.secret,
        identity_secret=grant.secret,
        identity_since_s=grant.since_s,
        tree_secret=SECRET if spec.type is ChildType.SUPERVISOR else b"",
        notify_socket=str(run_dir / "notify"),
    )


def _await(client: LauncherClient, kind: type[N]) -> N:
    found: list[N] = []

    def arrived() -> bool:
        for notice in client.notices():
            if isinstance(notice, Launched):
                os.close(notice.pidfd)
            if isinstance(notice, kind):
                found.append(notice)
        return bool(found)

    _until(arrived)
    return found[0]


def _await_spare(client: LauncherClient, *, but: int) -> int:
    """The pid of the spare, once there is one beside so many other children."""
    _until(lambda: len(children_of(client.pid)) > but)
    spare = max(children_of(client.pid), key=_started)
    _until(lambda: _thread_count(spare) > 1)  # warm
    return spare


def _await_programs(client: LauncherClient, count: int) -> list[int]:
    """The pids of the programs below a launcher, once there are as many."""

    def found() -> list[int]:
        return [pid for pid in descendants_of(client.pid) if _is_program(pid)]

    _until(lambda: len(found()) == count)
    return found()


def _await_program(pid: int) -> None:
    _until(lambda: _is_program(pid))


def _is_program(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
    except OSError:
        return False


def _has_descriptors(pid: int, wanted: set[str]) -> bool:
    return {link.name for link in Path(f"/proc/{pid}/fd").iterdir()} == wanted


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _started(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _thread_count(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.005)
