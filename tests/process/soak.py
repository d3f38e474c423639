"""Random kills at every level of a tree, and what must hold after them.

As a program, for as long as one likes: ``python -m tests.process.soak --seconds 600 --seed 7``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from protocol.errors import NovacronError
from protocol.messages.health import HealthState
from protocol.messages.status import ComponentStatus, NodeStatus
from protocol.records import from_wire
from protocol.transports.person import PersonKeys
from protocol.transports.zeromq import SyncClient
from supervisor.posix import prctl
from supervisor.posix.processes import children_of, descendants_of, end_strangers

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30.0
# Kills before the first measurement: what is imported and allocated once is there by then.
_WARM_UP_KILLS = 60
_GONE_WITHIN_S = 1.0
_MIB = 1 << 20


@dataclass(slots=True)
class Outcome:
    """What a run found.

    Attributes:
        seed: with which it can be run again.
        kills: processes that were killed.
        by_title: how often each kind of process was.
        descriptors, resident_mib: of the root, quiet, early and at the end.
        zombies, orphans: process ids that were left, at the end.
        exit_code: of the root, stopped by SIGTERM.
        left: titles of what outlived the root by more than a second.
    """

    seed: int
    kills: int = 0
    by_title: dict[str, int] = field(default_factory=dict)
    descriptors: list[int] = field(default_factory=list)
    resident_mib: list[float] = field(default_factory=list)
    zombies: list[int] = field(default_factory=list)
    orphans: list[int] = field(default_factory=list)
    exit_code: int | None = None
    left: list[str] = field(default_factory=list)


def soak(seconds: float, *, seed: int, per_second: float = 5.0) -> Outcome:
    """Run the tree of soak_tree and kill its processes at random.

    Raises:
        TimeoutError: the tree did not become whole again in time.
    """
    prctl.become_subreaper()  # what outlives the tree falls to this process
    directory = Path(tempfile.mkdtemp(prefix="novacron-soak-", dir="/tmp"))
    (directory / "run").mkdir(mode=0o750)
    command = [sys.executable, "-m", "tests.process.soak_tree", str(directory)]
    with (directory / "err").open("wb") as errors:
        root = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
        )
    outcome = Outcome(seed=seed)
    try:
        _until_whole(directory)
        chance = random.Random(seed)
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            _kill_one(root.pid, chance, outcome)
            if outcome.kills == _WARM_UP_KILLS:
                _until_whole(directory)
                _measure(root.pid, outcome)
            time.sleep(1 / per_second)
        _until_whole(directory)
        _measure(root.pid, outcome)
        outcome.zombies = _lasting_zombies(root.pid)
        outcome.orphans = [pid for pid in children_of(os.getpid()) if pid != root.pid]
        below = {pid: _title(pid) for pid in descendants_of(root.pid)}
        root.send_signal(signal.SIGTERM)
        outcome.exit_code = root.wait(PATIENCE_S)
        time.sleep(_GONE_WITHIN_S)
        outcome.left = [title for pid, title in below.items() if _state(pid) not in ("", "Z")]
        return outcome
    except BaseException:
        sys.stderr.write((directory / "err").read_text()[-4000:])
        raise
    finally:
        if root.poll() is None:
            root.kill()
            root.wait()
        end_strangers(frozenset())
        shutil.rmtree(directory)


def _kill_one(root: int, chance: random.Random, outcome: Outcome) -> None:
    below = descendants_of(root)
    if not below:
        return  # the launcher is being replaced
    victim = chance.choice(sorted(below))
    title = _title(victim)
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
        outcome.kills += 1
        outcome.by_title[title] = outcome.by_title.get(title, 0) + 1


def _until_whole(directory: Path) -> None:
    """Wait until every component is healthy."""
    last = "it never answered"

    def is_whole() -> bool:
        nonlocal last
        try:
            status = _status(directory)
        except NovacronError as exc:
            last = str(exc)
            return False
        ill = [f"{c.path} {c.state.value} {c.reason}" for c in status.components if _is_ill(c)]
        last = "; ".join(ill)
        return bool(status.components) and not ill

    try:
        until(is_whole)
    except TimeoutError:
        raise TimeoutError(f"not whole within {PATIENCE_S} s: {last}") from None


def _is_ill(component: ComponentStatus) -> bool:
    return component.state is not HealthState.HEALTHY


def _status(directory: Path) -> NodeStatus:
    run = directory / "run"
    client = SyncClient(run, keys=PersonKeys(run))
    try:
        return from_wire(NodeStatus, client.call("novacron", "status", timeout_s=5.0))
    finally:
        client.close()


def _measure(root: int, outcome: Outcome) -> None:
    time.sleep(1.0)  # the spare, the journal's readers, closing connections
    outcome.descriptors.append(len(list(Path(f"/proc/{root}/fd").iterdir())))
    pages = int(Path(f"/proc/{root}/statm").read_text().split()[1])
    outcome.resident_mib.append(round(pages * os.sysconf("SC_PAGE_SIZE") / _MIB, 2))


def _lasting_zombies(root: int) -> list[int]:
    """Zombies that are still there after a second; a fresh one is about to be reaped."""
    first = {pid for pid in descendants_of(root) if _state(pid) == "Z"}
    time.sleep(1.0)
    return sorted(pid for pid in first if _state(pid) == "Z")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()[:60]
    except OSError:
        return ""


def until(holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it does not within the time.
    """
    deadline_s = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {patience_s} s")
        time.sleep(0.1)


def main() -> int:
    """Run and print the outcome as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--per-second", type=float, default=5.0)
    options = parser.parse_args()
    outcome = soak(options.seconds, seed=options.seed, per_second=options.per_second)
    sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
    return 1 if outcome.zombies or outcome.orphans or outcome.left or outcome.exit_code else 0


if __name__ == "__main__":
    sys.exit(main())
