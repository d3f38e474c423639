"""A tree in a process of its own whose children misuse what they are given, and its operator."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import supervisor
from protocol import codec
from protocol.messages.status import ComponentStatus
from protocol.records import from_wire, to_wire
from supervisor.child.service import CallHandler, Request, Service
from supervisor.client import Client, connect
from supervisor.core.spec import ChildSpec, Liveness, SupervisorSpec
from tests.fixtures.fix_node import ROOT, wait_until

BEATS = Liveness(period_s=0.2, missed_max=3)
START = "tests.process.limits_tree:Misuser"


class Misuser(Service):
    """Does to itself what it is called for."""

    def __init__(self) -> None:
        self._memory: list[bytearray] = []

    def calls(self) -> Mapping[str, CallHandler]:
        """Everything that a test can ask for."""
        return {"use": self._use, "free": self._free, "spin": _spin, "deadlock": _deadlock}

    async def terminate(self) -> None:
        """Do not end while several pieces of memory are used."""
        if len(self._memory) > 1:
            await asyncio.sleep(1000)

    def _use(self, request: Request) -> int:
        """Use so many MiB, in so many pieces; with two of them it never stops."""
        for _ in range(request.body["pieces"]):
            self._memory.append(bytearray(b"x") * (request.body["mib"] << 20))
        return len(self._memory)

    def _free(self, _request: Request) -> None:
        self._memory.clear()


def _spin(_request: Request) -> None:
    """A loop that nothing ends."""
    while True:
        pass


def _deadlock(_request: Request) -> None:
    """A lock that is held already."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def misuser(name: str, **fields: Any) -> ChildSpec:
    """A child that can be asked to misbehave."""
    fields = {"liveness": None, "depends_on": (), **fields}
    return ChildSpec(id=name, start=START, **fields)


class LimitsTree:
    """The running tree.

    Args:
        children: of its root.
        group: control group to start it in.
    """

    def __init__(self, *children: ChildSpec, group: Path | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="novacron-"))
        self.directory.chmod(0o755)
        wire = codec.encode(to_wire(SupervisorSpec(children=children))).hex()
        command = [sys.executable, "-m", "tests.process.limits_tree", str(self.directory), wire]
        with (self.directory / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [*command, str(group or "")], cwd=ROOT, stderr=err, stdin=subprocess.DEVNULL
            )
        self.client: Client

    def __enter__(self) -> Self:
        run = self.directory / "state/run"
        wait_until((run / "identity.sock").exists, f"a tree: {self.said}", 30.0)
        self.client = connect(self.directory / "state")
        return self

    def __exit__(self, *_exc: object) -> None:
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15.0)
        finally:
            self.process.kill()
            self.process.wait()
            shutil.rmtree(self.directory)

    def reload(self, *children: ChildSpec) -> None:
        """Have other children from now on."""
        spec = SupervisorSpec(children=children)
        (self.directory / "reload").write_bytes(codec.encode(to_wire(spec)))
        self.process.send_signal(signal.SIGHUP)

    def discard(self) -> None:
        """Remove what is left of a tree that has ended by itself."""
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory)

    def use(self, path: str, mib: int, pieces: int = 1) -> None:
        """Have a child use memory, in so many pieces."""
        self.client.call(path, "use", {"mib": mib, "pieces": pieces}, timeout_s=20.0)

    @property
    def said(self) -> str:
        """What it wrote to its standard error stream."""
        return (self.directory / "err").read_text(errors="replace")[-3000:]

    def component(self, path: str) -> ComponentStatus:
        """One component as the status shows it."""
        return next(it for it in self.client.status().components if it.path == path)

    def until(
        self, path: str, holds: Callable[[ComponentStatus], bool], timeout_s: float = 25.0
    ) -> ComponentStatus:
        """Wait until a component is as it should be; returns it."""

        def look() -> ComponentStatus | None:
            found = [it for it in self.client.status().components if it.path == path]
            return found[0] if found and holds(found[0]) else None

        found = wait_until(look, f"{path}: {self.said}", timeout_s)
        assert isinstance(found, ComponentStatus)
        return found

    def up(self, path: str) -> int:
        """Wait until a component runs and works; returns its process id."""
        pid = self.until(path, lambda it: it.state.value in ("healthy", "degraded")).pid
        assert pid is not None
        return pid

    def events(self, name: str) -> list[dict[str, Any]]:
        """The journal's records of a name."""
        page = self.client.call("novacron", "journal", {"since": 0, "limit": 1000})
        return [record for record in page["records"] if record["name"] == name]

    def stacks(self, path: str) -> str:
        """The stacks in a component's log."""
        lines = (self.directory / "logs" / f"{path}.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines]
        return "".join(line["stacks"] for line in found if line["event"] == "stacks")


def _read(file: Path) -> tuple[ChildSpec, ...]:
    return from_wire(SupervisorSpec, codec.decode(file.read_bytes())).children


def main() -> None:
    """Run the tree that the arguments describe."""
    directory, wire, group = sys.argv[1:]
    if group:
        Path(group, "cgroup.procs").write_text(str(os.getpid()))
    spec = from_wire(SupervisorSpec, codec.decode(bytes.fromhex(wire)))
    sys.exit(
        supervisor.run(
            spec.children,
            state_dir=f"{directory}/state",
            log_dir=f"{directory}/logs",
            reload=lambda: _read(Path(directory, "reload")),
            intensity=3,
            period_s=60.0,
        )
    )


if __name__ == "__main__":
    main()
