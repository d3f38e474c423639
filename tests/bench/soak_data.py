"""Kill processes of the data level at random while somebody writes, and see what became of it.

    python -m tests.bench.soak_data --kills 1000 --seed 7

Killed with SIGKILL are the postmaster, any of its processes, the database service and the data
supervisor. What must hold in the end: each acknowledged number is in the table, each number of
which we were told that nothing was done is not, and none is there twice.

A kill -9 does not take the machine's memory: that PostgreSQL has synchronised its log before it
acknowledges is its own promise (fsync), and not shown here.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from protocol.records import Plain
from supervisor.posix.processes import descendants_of
from tests.bench.figures import Benchmark, Figure, MeasurementError, note, show

KILLS = 1000
# Killed again only when this many more numbers were acknowledged.
PROGRESS = 20
RECOVERY_S = 60.0
_SERVICE_USER = "novacron"
_ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Outcome:
    """What became of the numbers.

    Attributes:
        kills: by what was killed.
        acknowledged, unknown, refused: how many numbers were told so.
        lost: acknowledged and not in the table.
        undead: refused and in the table.
        twice: in the table more than once.
        unknown_done: of the unknown ones those that are in the table.
        recovery_s: from each kill until numbers were acknowledged again.
    """

    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    unknown: int = 0
    refused: int = 0
    lost: int = 0
    undead: int = 0
    twice: int = 0
    unknown_done: int = 0
    recovery_s: list[float] = field(default_factory=list)


class Soak:
    """A tree of the data level and a writer, in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._user = _SERVICE_USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self._acks = directory / "acks"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start both and wait for the first acknowledged numbers."""
        (self._directory / "pg").mkdir()
        if os.geteuid() == 0:
            shutil.chown(self._directory / "pg", self._user, self._user)
        self._spawn("tests.bench.soak_tree", str(self._directory), self._user)
        self._spawn("tests.bench.soak_writer", str(self._directory))
        self._wait_progress(0)
        # What fails before the tree is up ends it, as it should.
        give_up_s = time.monotonic() + RECOVERY_S
        while b"init:complete" not in (self._directory / "log").read_bytes():
            if time.monotonic() > give_up_s:
                raise MeasurementError(f"the tree does not come up: {self._said()}")
            time.sleep(0.05)

    def run(self, kills: int, seed: int) -> Outcome:
        """Kill so often, then stop all writing and count."""
        outcome, choice = Outcome(), random.Random(seed)
        for number in range(1, kills + 1):
            before = self._acknowledged()
            kind = self._kill(choice)
            outcome.kills[kind] += 1
            killed_s = time.monotonic()
            self._wait_progress(before)
            outcome.recovery_s.append(time.monotonic() - killed_s)
            # Not always in the same moment of the recovery.
            time.sleep(choice.uniform(0.0, 0.2))
            if number % 50 == 0:
                note(f"  {number} kills, {self._acknowledged()} acknowledged")
        self._count(outcome)
        return outcome

    def stop(self) -> None:
        """End both, the writer first."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30.0)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(10.0)
        self._processes.clear()

    def _spawn(self, module: str, *arguments: str) -> None:
        with (self._directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], cwd=_ROOT, stdout=log, stderr=log
            )
        self._processes.append(process)

    def _kill(self, choice: random.Random) -> str:
        give_up_s = time.monotonic() + RECOVERY_S
        while time.monotonic() < give_up_s:
            kind, pid = choice.choice(self._targets() or [("", 0)])
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    return kind
            time.sleep(0.01)
        raise MeasurementError("there is nothing to kill")

    def _targets(self) -> list[tuple[str, int]]:
        """What may be killed, by kind; each kind is as likely as the others."""
        found: dict[str, list[int]] = {}
        tree = self._processes[0].pid
        for pid in descendants_of(tree):
            if kind := _kind(pid):
                found.setdefault(kind, []).append(pid)
        return [(kind, pids[time.monotonic_ns() % len(pids)]) for kind, pids in found.items()]

    def _wait_progress(self, before: int) -> None:
        give_up_s = time.monotonic() + RECOVERY_S
        while self._acknowledged() < before + PROGRESS:
            if any(process.poll() is not None for process in self._processes):
                raise MeasurementError(f"the tree or the writer ended: {self._said()}")
            if time.monotonic() > give_up_s:
                raise MeasurementError(f"nothing is acknowledged any more: {self._said()}")
            time.sleep(0.01)

    def _acknowledged(self) -> int:
        # A line is short and the file grows by megabytes: its length tells enough.
        return self._acks.stat().st_size // 9 if self._acks.exists() else 0

    def _said(self) -> str:
        lines = (self._directory / "log").read_text(errors="replace").splitlines()
        ours = [line for line in lines if line.startswith(("{", "Traceback", " "))]
        return "\n".join((*ours[-8:], *lines[-8:]))

    def _count(self, outcome: Outcome) -> None:
        writer = self._processes.pop()
        writer.send_signal(signal.SIGTERM)
        writer.wait(30.0)
        told: dict[str, set[int]] = {"+": set(), "?": set(), "-": set()}
        for line in self._acks.read_text().splitlines():
            told[line[0]].add(int(line[2:]))
        rows = Counter(self._rows())
        outcome.acknowledged, outcome.unknown, outcome.refused = (len(told[key]) for key in "+?-")
        outcome.lost = len(told["+"] - rows.keys())
        outcome.undead = len(told["-"] & rows.keys())
        outcome.unknown_done = len(told["?"] & rows.keys())
        outcome.twice = sum(1 for times in rows.values() if times > 1)

    def _rows(self) -> list[int]:
        dsn = f"host={self._directory / 'pg/socket'} user=novacron dbname=novacron"
        give_up_s = time.monotonic() + RECOVERY_S
        while True:
            try:
                with psycopg.connect(dsn) as connection:
                    return [row[0] for row in connection.execute("SELECT n FROM soak").fetchall()]
            except psycopg.OperationalError:
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(0.1)


@contextlib.contextmanager
def soaking() -> Iterator[Soak]:
    """A soak that has started; nothing is left of it."""
    directory = Path(tempfile.mkdtemp(prefix="nc-soak-", dir="/tmp"))
    directory.chmod(0o755)
    soak = Soak(directory)
    try:
        soak.start()
        yield soak
    finally:
        soak.stop()
        shutil.rmtree(directory, ignore_errors=True)


def measure(runs: int) -> Iterator[Figure]:
    """So many kills; the number of lost numbers."""
    yield _figure(runs, seed=int(time.time()))


def _figure(kills: int, seed: int) -> Figure:
    with soaking() as soak:
        outcome = soak.run(kills, seed)
    ordered = sorted(outcome.recovery_s)
    by_kind: dict[str, Plain] = dict(outcome.kills)
    return Figure(
        name="data_kill_lost",
        value=outcome.lost + outcome.undead + outcome.twice,
        unit="writes",
        limit=0,
        details={
            "kills": by_kind,
            "seed": seed,
            "acknowledged": outcome.acknowledged,
            "unknown": outcome.unknown,
            "unknown_done": outcome.unknown_done,
            "refused": outcome.refused,
            "lost": outcome.lost,
            "undead": outcome.undead,
            "twice": outcome.twice,
            "recovery_s": {
                "p50": round(ordered[len(ordered) // 2], 3),
                "max": round(ordered[-1], 3),
            },
        },
    )


def _kind(pid: int) -> str:
    try:
        program = Path(f"/proc/{pid}/exe").readlink().name
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
    if program == "postgres":
        return "backend" if command.startswith("postgres: ") else "postmaster"
    if "data/database" in command:
        return "database"
    return "supervisor" if command.split(": ")[-1].strip() == "data" else ""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=0, help="of the choice what is killed")
    options = parser.parse_args()
    show(_figure(options.kills, options.seed))


BENCHMARK = Benchmark(
    figures=("data_kill_lost",),
    summary="kill -9 of data processes while somebody writes; --runs is the number of kills",
    runs=KILLS,
    measure=measure,
)

if __name__ == "__main__":
    main()
