"""The console process on real pipes and terminals."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from protocol.records import Plain

pytestmark = pytest.mark.process

CODE = (
    "from services.node import console; console.run(0, stdout_fd=1, stderr_fd=2)"  # stdin: the pipe
)


def journal(name: str, component: str = "novacron", **fields: Plain) -> bytes:
    """A log line that carries a journal record."""
    record = {"seq": 1, "time_s": time.time(), "name": name, "component": component}
    line = {"event": "journal", "level": "info", "record": {**record, "fields": fields}}
    return json.dumps(line).encode() + b"\n"


LOG = b'{"timestamp": "2026-03-01T12:00:00Z", "level": "info", "component": "api", "event": "hi"}\n'
COMPLETE = journal(
    "init:complete", phase=6, duration_s=0.1, boot_s=1.25, addresses={"api": "http://[::1]:8080"}
)


def start(**streams: Any) -> subprocess.Popen[bytes]:
    """Start a console whose pipe is ``stdin``."""
    return subprocess.Popen(
        [sys.executable, "-c", CODE],
        stdin=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": ""},
        **streams,
    )


def read_until(descriptor: int, text: bytes) -> bytes:
    """What a terminal shows until ``text`` is among it."""
    seen = b""
    deadline_s = time.monotonic() + 20
    while text not in seen and time.monotonic() < deadline_s:
        if select.select([descriptor], [], [], 0.1)[0]:
            seen += os.read(descriptor, 65536)
    assert text in seen, seen
    return seen


def feed(console: subprocess.Popen[bytes], data: bytes) -> None:
    """Write to the console's pipe."""
    assert console.stdin is not None
    console.stdin.write(data)
    console.stdin.flush()


def test_pipes_get_plain_progress_and_unchanged_lines() -> None:
    """Where nothing is a terminal, progress is text on one stream and the log JSON on the other."""
    console = start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    out, err = console.communicate(LOG + COMPLETE + b"Segmentation fault", timeout=20)

    assert console.returncode == 0
    assert err == LOG + COMPLETE + b"Segmentation fault\n"
    assert out.splitlines()[:2] == [b"phase 6 health: ready in 0.10 s", b"ready in 1.25 s"]


def test_signals_to_the_terminal_do_not_end_it() -> None:
    """Ctrl-C reaches the whole foreground group; the console stays for the node's last words."""
    console = start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert console.stderr is not None
    feed(console, LOG)
    console.stderr.readline()  # it runs, and has set its signals
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        console.send_signal(number)

    out, err = console.communicate(journal("node:stopped"), timeout=20)

    assert console.returncode == 0
    assert out == b"stopped\n"
    assert err


def test_terminal_shows_a_live_boot_and_a_summary() -> None:
    """On a terminal the picture is redrawn while nothing arrives, then gives way to the summary."""
    master, slave = pty.openpty()
    console = start(stdout=slave, stderr=slave)
    os.close(slave)

    feed(console, journal("component:state", "core/vm", state="starting", phase=4))
    first = read_until(master, b"core/vm")
    feed(console, LOG)
    second = read_until(master, b"hi")
    third = read_until(master, b"\x1b[1A")  # drawn over, by time alone
    feed(console, COMPLETE)
    last = read_until(master, b"shows it")
    console.communicate(timeout=20)
    os.close(master)

    assert b"NovaCron is starting" in first
    assert b"init:" not in first + second + third + last
    assert b"\x1b[32mready\x1b[0m in 1.25 s" in last
    assert b"http://[::1]:8080" in last
    assert b"\x1b[?25h" in last  # the cursor is back
    assert console.returncode == 0


def test_terminal_that_goes_away_is_survived() -> None:
    """A closed terminal neither ends the console nor stops it from emptying the pipe."""
    master, slave = pty.openpty()
    console = start(stdout=slave, stderr=slave)
    os.close(slave)
    feed(console, journal("component:state", "core/vm", state="starting", phase=4))
    read_until(master, b"core/vm")
    os.close(master)

    console.communicate(LOG * 10_000 + COMPLETE, timeout=20)

    assert console.returncode == 0
