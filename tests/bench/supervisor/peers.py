"""The supervisors that are compared, one class each: how it is set up, asked and told to stop.

What is common to them: a supervisor gets a directory of its own, its output goes to a file there,
and whatever is left of it afterwards is ended.
"""

from __future__ import annotations

import abc
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from supervisor.posix import processes
from tests.bench.figures import MeasurementError
from tests.bench.supervisor.observe import Ear

HERE = Path(__file__).parent
SLEEP = ("/bin/sleep", "86397")
FALSE = ("/bin/false",)
_END_S = 5.0


def python() -> str:
    """The interpreter outside of any virtual environment, which starts quickest."""
    return str(Path(sys.base_prefix, "bin", "python3"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a supervisor has to keep.

    Attributes:
        kind: ``sleep``, ``python``, or ``program``: the Python program, executed.
        count: how many.
        storm: they end as soon as they run, and are started for ever.
    """

    kind: str
    count: int
    storm: bool = False


class Peer(abc.ABC):
    """One supervisor.

    Args:
        load: what it keeps.

    Attributes:
        name: for people.
        main: its process, once started.
        directory: its files.
    """

    name: str
    has_commands = True

    def __init__(self, load: Load) -> None:
        self.load = load
        self.directory = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
        self.ear = Ear(self.directory)
        self.main: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str:
        """Why it can't be run here; "" where it can."""
        return ""

    @abc.abstractmethod
    def argv(self) -> list[str]:
        """Write its configuration; returns how it is started."""

    def command(self) -> None:
        """Ask it how its children are, and wait for the answer."""
        raise NotImplementedError

    def start(self) -> int:
        """Start it; returns when, in monotonic nanoseconds."""
        argv = self.argv()
        with (self.directory / "output").open("wb") as output:
            begun_ns = time.monotonic_ns()
            self.main = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if self.speaks_on_stdout else output,
                stderr=output,
                start_new_session=True,
                cwd=self.directory,
                env=self.environment(),
            )
        return begun_ns

    speaks_on_stdout = False

    def environment(self) -> dict[str, str]:
        """Its variables."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.directory), "LANG": "C.UTF-8"}

    @property
    def pid(self) -> int:
        """Its first process."""
        assert self.main is not None
        return self.main.pid

    def ask_stop(self) -> None:
        """Tell it to stop, with all children."""
        os.kill(self.pid, signal.SIGTERM)

    def supervisors(self, children: set[int]) -> list[int]:
        """Its processes without its children."""
        return [
            pid for pid in (self.pid, *processes.descendants_of(self.pid)) if pid not in children
        ]

    def child_argv(self) -> list[str]:
        """What the other supervisors execute."""
        if self.load.kind == "sleep":
            return list(FALSE if self.load.storm else SLEEP)
        crash = ["crash"] if self.load.storm else []
        return [python(), str(HERE / "child.py"), str(self.ear.path), *crash]

    def complain(self) -> str:
        """The end of what it has written."""
        with contextlib.suppress(OSError):
            return (self.directory / "output").read_text(errors="replace")[-2000:]
        return ""

    def close(self) -> None:
        """End what is left of it, and remove its files."""
        try:
            if self.main is not None:
                self._kill(self.main)
        finally:
            # What it leaves behind comes to us, since we are a sub-reaper.
            processes.end_descendants()
            self.ear.close()
            shutil.rmtree(self.directory, ignore_errors=True)

    def _kill(self, main: subprocess.Popen[bytes]) -> None:
        if main.poll() is None:
            main.kill()
        for stream in (main.stdin, main.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        main.wait(_END_S)


def read_line(peer: Peer, timeout_s: float) -> bytes:
    """A line that a supervisor answers with.

    Raises:
        MeasurementError: it did not.
    """
    assert peer.main is not None
    assert peer.main.stdout is not None
    if not select.select([peer.main.stdout], [], [], timeout_s)[0]:
        raise MeasurementError(f"{peer.name} did not answer")
    return peer.main.stdout.readline()
