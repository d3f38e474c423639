"""A supervisor of commands in a process of its own, and what a test sees of it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from protocol import codec, names
from protocol.messages.control import ComponentRecord, EventReport
from protocol.records import from_wire, to_wire
from protocol.transports.curve import key_pair
from supervisor.child import logs
from supervisor.core import events
from supervisor.core.readiness import EXEC, Readiness
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import (
    Backoff,
    ChildSpec,
    ChildType,
    FailureClass,
    RestartIntensity,
    SupervisorSpec,
)
from supervisor.runtime.launch import TreeSettings
from supervisor.runtime.launcher_client import LauncherClient
from supervisor.runtime.loop import SupervisorLoop

PATIENCE_S = 10.0


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """A directory below which any account may look, unlike pytest's own."""
    directory = Path(tempfile.mkdtemp(prefix="novacron-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def command(
    name: str,
    *argv: str,
    readiness: Readiness = EXEC,
    settings: dict[str, object] | None = None,
    **fields: Any,
) -> ChildSpec:
    """The specification of a program that is tried again slowly when it fails."""
    return ChildSpec(
        id=name,
        start="supervisor.child.command:prepare",
        type=ChildType.COMMAND,
        settings={"argv": list(argv), **(settings or {})},
        readiness=readiness,
        failure=FailureClass.DEGRADED,
        depends_on=(),
        **fields,
    )


class CommandTree:
    """The running supervisor.

    Args:
        directory: for its run directory ``run`` and its log files ``logs``.
        children: its commands.
        log_bytes_max: size of a log file.
        intensity: restarts of a child before it is tried again slowly.
    """

    def __init__(
        self,
        directory: Path,
        *children: ChildSpec,
        log_bytes_max: int = 1 << 20,
        intensity: int = 1,
    ) -> None:
        self.logs = directory / "logs"
        self.run = directory / "run"
        self.run.mkdir(exist_ok=True)
        self.records: dict[str, dict[str, Any]] = {}
        self.history: list[dict[str, Any]] = []
        tree = TreeSettings(
            run_dir=str(self.run), log_dir=str(self.logs), log_bytes_max=log_bytes_max, log_files=3
        )
        spec = SupervisorSpec(
            children=children,
            intensity=RestartIntensity(intensity=intensity, period_s=60.0),
            backoff=Backoff(jitter=0.0, initial_s=0.0, max_s=0.0),
        )
        self.process = subprocess.Popen(
            [sys.executable, __file__, codec.encode([to_wire(tree), to_wire(spec)]).hex()],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._partial = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for number in (signal.SIGCONT, signal.SIGTERM):
            self.process.send_signal(number)
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def until(self, name: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until a child's record is as it should be; returns it."""
        deadline_s = time.monotonic() + PATIENCE_S
        while name not in self.records or not holds(self.records[name]):
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"{name} stayed {self.records.get(name)}; log: {self.log(name)}"
            self._read(left_s)
        return self.records[name]

    def until_up(self, name: str) -> dict[str, Any]:
        """Wait until a child is up."""
        return self.until(name, lambda record: record["up_s"] is not None)

    def until_failed(self, name: str) -> str:
        """Wait until a child has ended by itself; returns the reason."""
        return str(self.until(name, lambda record: bool(record["last_exit"]))["last_exit"])

    def log(self, name: str) -> str:
        """What a command has written by now."""
        file = self.logs / f"{name}.log"
        return file.read_text(errors="replace")[-4000:] if file.exists() else ""

    def _read(self, timeout_s: float) -> None:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], timeout_s)[0]:
            return
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        assert data, "the supervisor has ended"
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            record = json.loads(line)
            self.records[record["path"]] = record
            self.history.append(record)


class _Owner:
    """Prints what its supervisor tells of."""

    def __init__(self, loop: SupervisorLoop) -> None:
        self._loop = loop

    def changed(self, record: ComponentRecord) -> None:
        shown = {
            name: getattr(record, name)
            for name in ("path", "reason", "pid", "restarts", "up_s", "started_s", "last_exit")
        }
        sys.stdout.write(json.dumps({**shown, "state": record.state.value}) + "\n")
        sys.stdout.flush()

    def happened(self, report: EventReport) -> None:
        pass

    def came_up(self) -> None:
        pass

    def take_signal(self, number: int) -> None:
        if number == signal.SIGTERM:
            self._loop.step(events.StopAll(ExitReason(kind=ExitKind.SHUTDOWN)))

    def replace_launcher(self) -> LauncherClient | None:
        return None

    def due_s(self) -> float | None:
        return None

    def turn(self, now_s: float) -> None:
        pass


def main() -> None:
    """Run the supervisor that the argument describes until it is told to stop."""
    tree_wire, spec_wire = codec.decode(bytes.fromhex(sys.argv[1]))
    tree, spec = from_wire(TreeSettings, tree_wire), from_wire(SupervisorSpec, spec_wire)
    launcher = LauncherClient.fork("commands")
    logs.configure(names.ROOT, log_dir=tree.log_dir, level=tree.log_level)
    secret = bytes(32)
    keys = key_pair(secret, f"{names.ROOT}\0")
    loop = SupervisorLoop(
        spec, path=names.ROOT, tree=tree, secret=secret, keys=keys, launcher=launcher
    )
    loop.owner = _Owner(loop)
    with contextlib.suppress(BrokenPipeError):
        loop.run()
    launcher.end()


if __name__ == "__main__":
    main()
