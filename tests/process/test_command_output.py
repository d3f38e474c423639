"""What commands write: never in their way, never lost without need, and never without bound."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from services.ctl import logfiles
from supervisor.core.readiness import parse
from tests.process.command_tree import PATIENCE_S, CommandTree, command

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("no_process_left")]

# Writes numbered lines of 64 bytes, and says on standard error what came of it.
WRITE = """
import os, sys, time
rate, length_s, file = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
number, worst_s, begin_s = 0, 0.0, time.monotonic()
while (now_s := time.monotonic()) < begin_s + length_s:
    data = b"".join(b"%010d %s\\n" % (number + n, b"y" * 52) for n in range(64))
    if os.write(1, data) != len(data):
        raise SystemExit("written in part")
    worst_s = max(worst_s, time.monotonic() - now_s)
    number += 64
    time.sleep(max(0.0, begin_s + number * 64 / rate - time.monotonic()))
with open(f"{file}.new", "w") as result:
    result.write(f"{number} {worst_s}")
os.rename(f"{file}.new", file)
time.sleep(1000)
"""
LINE_BYTES = 64
LIMIT_BYTES = 1 << 20


def _writer(result: Path, *, rate: float, length_s: float) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", WRITE, str(rate), str(length_s), str(result))


def _await(result: Path) -> tuple[int, float]:
    deadline_s = time.monotonic() + PATIENCE_S
    while not result.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    count, worst_s = result.read_text().split()
    return int(count), float(worst_s)


def _await_size(logs: Path, bytes_max: int) -> int:
    """Wait until the files of a log are within a size; returns what they have."""
    deadline_s = time.monotonic() + PATIENCE_S
    while (size := _size(logs)) > bytes_max:
        assert time.monotonic() < deadline_s, f"{size} bytes"
        time.sleep(0.01)
    return size


def _size(logs: Path) -> int:
    found = 0
    for file in logs.glob("writer.log*"):
        with contextlib.suppress(FileNotFoundError):  # renamed under our eyes
            found += file.stat().st_size if file.suffix != ".new" else 0
    return found


def test_nothing_is_lost_at_a_rotation(tmp_path: Path) -> None:
    """The rotated files and the current one, in order, are what was written, byte for byte."""
    result = tmp_path / "result"
    writer = command("writer", *_writer(result, rate=2e6, length_s=1.5))
    with CommandTree(tmp_path, writer, log_bytes_max=LIMIT_BYTES) as tree:
        count, _ = _await(result)
        _await_size(tree.logs, 4 * LIMIT_BYTES)
        files = [tree.logs / f"writer.log.{number}" for number in (3, 2, 1)]
        data = b"".join(file.read_bytes() for file in files if file.exists())
        assert data  # it was rotated
        data += (tree.logs / "writer.log").read_bytes()
    if _can_cut(tmp_path):
        assert [int(line[:10]) for line in data.splitlines()] == list(range(count))


def test_a_flood_is_bounded_and_delays_nobody(tmp_path: Path) -> None:
    """At 100 MB/s the disk keeps the newest few files, and a sibling is restarted as ever."""
    result = tmp_path / "result"
    writer = command("writer", *_writer(result, rate=1e8, length_s=2.0))
    sibling = command("sibling", "/bin/sleep", "1000", readiness=parse("exec"))
    with CommandTree(tmp_path, writer, sibling, log_bytes_max=LIMIT_BYTES) as tree:
        pid = tree.until_up("sibling")["pid"]
        tree.until_up("writer")
        time.sleep(0.5)  # let it flood
        before_s = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        tree.until("sibling", lambda record: record["pid"] not in (pid, None))
        assert time.monotonic() - before_s < 0.5
        largest = 0
        while not result.exists():
            largest = max(largest, _size(tree.logs))
            time.sleep(0.01)
        count, _ = _await(result)
        assert largest < count * LINE_BYTES / 2
        assert _await_size(tree.logs, 5 * LIMIT_BYTES) > 0


def test_a_stopped_supervisor_blocks_no_command(tmp_path: Path) -> None:
    """While the supervisor is stopped a chatty command goes on; afterwards the file is cut."""
    result = tmp_path / "result"
    writer = command("writer", *_writer(result, rate=2e7, length_s=2.0))
    with CommandTree(tmp_path, writer, log_bytes_max=LIMIT_BYTES) as tree:
        tree.until_up("writer")
        tree.process.send_signal(signal.SIGSTOP)
        count, worst_s = _await(result)
        assert count * LINE_BYTES > 1e7
        assert worst_s < 1.0  # of a busy disk, not of us, who would need two
        assert _size(tree.logs) > 5 * LIMIT_BYTES
        tree.process.send_signal(signal.SIGCONT)
        _await_size(tree.logs, 5 * LIMIT_BYTES)


def test_logs_are_read_by_component(tmp_path: Path) -> None:
    """Both streams, of the program and of the failure to execute it, are the component's log."""
    child = command("talker", "/bin/sh", "-c", "echo out; echo problem >&2; exec sleep 1000")
    with CommandTree(tmp_path, child, command("missing", "/no/such")) as tree:
        tree.until_up("talker")
        tree.until_failed("missing")
        deadline_s = time.monotonic() + PATIENCE_S
        while "problem" not in tree.log("talker") and time.monotonic() < deadline_s:
            time.sleep(0.01)
        found = logfiles.newest(logfiles.sources(tree.logs), 100, lambda _entry: True)
    texts = {
        (entry.component, text)
        for entry in found
        for text in (str(entry.fields["event"]), *entry.more)
    }
    assert {("talker", "out"), ("talker", "problem")} <= texts
    assert any(name == "missing" and "No such file" in text for name, text in texts)


def _can_cut(directory: Path) -> bool:
    """Whether the file system can take a file's beginning out."""
    from supervisor.posix.heads import block_bytes, remove_head

    file = directory / "probe"
    with file.open("w+b") as stream:
        block = block_bytes(stream.fileno())
        stream.write(bytes(2 * block))
        stream.flush()
        return remove_head(stream.fileno(), block)
