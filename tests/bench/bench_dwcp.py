"""How fast DWCP moves a file over loopback between two nodes on this machine.

Prints one JSON line per figure. Both ends, with all reading, compressing, hashing, writing and
syncing, share the machine's CPUs, so a figure here is below what two machines reach.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path

import psutil
import structlog

from tests.fixtures.fix_dwcp import Node, running

SIZE_BYTES = 256 << 20
ROUNDS = 3
STREAMS = (1, 4, 16, 32)


def make_compressible(path: Path, size_bytes: int) -> None:
    """The system's own programs and libraries, as a disk image would hold them."""
    sources = (p for d in ("/usr/lib", "/usr/bin") for p in sorted(Path(d).rglob("*")))
    with path.open("wb") as file:
        for source in sources:
            if file.tell() >= size_bytes:
                break
            if source.is_file() and not source.is_symlink() and os.access(source, os.R_OK):
                file.write(source.read_bytes()[: size_bytes - file.tell()])
        assert file.tell() == size_bytes, "the system has too few files"


def make_random(path: Path, size_bytes: int) -> None:
    """Nothing to compress."""
    with path.open("wb") as file:
        while file.tell() < size_bytes:
            file.write(os.urandom(min(8 << 20, size_bytes - file.tell())))


def make_sparse(path: Path, size_bytes: int) -> None:
    """A hole with a megabyte at its end."""
    with path.open("wb") as file:
        file.truncate(size_bytes - (1 << 20))
        file.seek(0, os.SEEK_END)
        file.write(os.urandom(1 << 20))


def cpu_s(node: Node) -> float:
    """CPU time that a node's transports have used."""
    times = (psutil.Process(t.process.pid).cpu_times() for t in node.transports.values())
    return sum(used.user + used.system for used in times)


def report(figure: str, value: float, unit: str) -> None:
    """Print one figure."""
    print(json.dumps({"figure": figure, "value": round(value, 2), "unit": unit}), flush=True)


async def transfer(sender: Node, receiver: Node, file: Path, streams: int) -> tuple[float, float]:
    """Send once; MB/s of the file, and the ratio of compression."""
    identifier = await sender.send(file, receiver.port, streams=streams)
    status = await sender.wait_ended(identifier, 120.0)
    assert status.error == "", status
    (receiver.incoming / file.name).unlink()
    ratio = status.data_bytes / status.wire_bytes if status.wire_bytes else 0.0
    return status.rate_bytes_s / 1e6, ratio


async def measure(directory: Path) -> None:
    """All figures."""
    files = {"compressible": make_compressible, "incompressible": make_random}
    sender, receiver = Node(directory / "a", 1), Node(directory / "b", 1)
    async with running(sender, receiver):
        for kind, make in files.items():
            file = directory / kind
            make(file, SIZE_BYTES)
            for streams in STREAMS:
                before = cpu_s(sender), cpu_s(receiver)
                rounds = [await transfer(sender, receiver, file, streams) for _ in range(ROUNDS)]
                median = sorted(rounds)[ROUNDS // 2]
                report(f"dwcp_{kind}_256mib_{streams}_streams", median[0], "MB/s")
                cpu = (cpu_s(sender) - before[0], cpu_s(receiver) - before[1])
                moved_gb = ROUNDS * SIZE_BYTES / 1e9
                for side, used_s in zip(("sender", "receiver"), cpu, strict=True):
                    name = f"dwcp_{kind}_256mib_{streams}_streams_{side}_cpu"
                    report(name, used_s / moved_gb, "s/GB")
            report(f"dwcp_{kind}_256mib_ratio", median[1], "ratio")
            file.unlink()
        sparse = directory / "sparse"
        make_sparse(sparse, 1 << 40)
        identifier = await sender.send(sparse, receiver.port)
        status = await sender.wait_ended(identifier, 120.0)
        report("dwcp_sparse_1tib", (status.ended_s or 0.0) - status.started_s, "s")


def main() -> None:
    """Run in a temporary directory."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory(prefix="dwcp-bench-") as directory:
        asyncio.run(measure(Path(directory)))


if __name__ == "__main__":
    main()
