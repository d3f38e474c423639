"""What of each line is shown where; without a process or a terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from protocol.records import Plain
from services.ctl.styled import Line, to_plain
from services.node.console import LINE_BYTES_MAX, Console, LineSplitter, Stream


class Recorder(Stream):
    """A stream that remembers what was written."""

    def __init__(self, *, is_terminal: bool) -> None:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        super().__init__(descriptor, {"TERM": "xterm", "NO_COLOR": "1"})
        os.close(descriptor)
        self.is_terminal = is_terminal
        self.written = b""

    def write(self, data: bytes) -> None:
        """Remember."""
        self.written += data

    @property
    def lines(self) -> list[str]:
        """What was written, line by line."""
        return self.written.decode().splitlines()


class Picture:
    """The memory twin of a screen."""

    def __init__(self) -> None:
        self.drawn: list[str] = []
        self.above: list[str] = []
        self.is_closed = False

    def draw(self, lines: Iterable[Line]) -> None:
        """Remember the picture."""
        self.drawn = [to_plain(spans) for spans in lines]

    def print_above(self, lines: Iterable[Line]) -> None:
        """Remember the lines."""
        self.above += [to_plain(spans) for spans in lines]

    def close(self) -> None:
        """Remember that it is over."""
        self.is_closed = True


def journal(name: str, component: str = "novacron", level: str = "info", **fields: Plain) -> bytes:
    """A log line that carries a journal record."""
    record = {"seq": 1, "time_s": 1000.0, "name": name, "component": component, "fields": fields}
    return json.dumps({"event": "journal", "level": level, "record": record}).encode()


LOG = json.dumps(
    {
        "timestamp": "2026-03-01T12:00:00",
        "level": "warning",
        "component": "core/vm",
        "event": "slow",
        "wait_s": 2,
    }
).encode()
COMPLETE = journal("init:complete", phase=6, duration_s=0.1, boot_s=1.0)


def test_lines_pass_unchanged_where_there_is_no_terminal() -> None:
    """A machine gets each line as it was written, journal records and broken lines included."""
    out, err = Recorder(is_terminal=False), Recorder(is_terminal=False)
    console = Console(out=out, err=err, screen=None)
    lines = (LOG, COMPLETE, b"not json \x1b[2J \xff", b"{}")

    for data in lines:
        console.take(data)

    assert err.written == b"".join(data + b"\n" for data in lines)
    assert out.lines[:2] == ["phase 6 health: ready in 0.10 s", "ready in 1.00 s"]


def test_terminal_gets_rendered_lines() -> None:
    """A person gets time, level, component, event and fields."""
    err = Recorder(is_terminal=True)
    console = Console(out=Recorder(is_terminal=False), err=err, screen=None)

    console.take(LOG)

    assert err.lines == ["12:00:00.000  warning  core/vm            slow  wait_s=2"]


def test_journal_is_not_repeated_on_a_terminal() -> None:
    """What progress shows is no log line as well, unless it is a warning."""
    err = Recorder(is_terminal=True)
    console = Console(out=Recorder(is_terminal=False), err=err, screen=None)

    console.take(journal("init:preflight-passed", phase=0))
    console.take(journal("disk:filling", level="warning"))

    assert len(err.lines) == 1


def test_broken_line_can_not_steer_the_terminal() -> None:
    """A line that is no record is shown with its control characters as escapes."""
    err = Recorder(is_terminal=True)
    console = Console(out=Recorder(is_terminal=False), err=err, screen=None)

    console.take(b"Segfault\x1b[2J")

    assert err.lines == ["Segfault\\x1b[2J"]


@pytest.mark.parametrize(
    "record",
    [None, {}, {"seq": "x"}, {"seq": 1, "time_s": 0, "name": "n", "component": "c", "z": 1}],
)
def test_journal_line_of_another_shape_is_a_log_line(record: Plain) -> None:
    """A record that is not understood is shown as any other line."""
    err = Recorder(is_terminal=True)
    console = Console(out=Recorder(is_terminal=False), err=err, screen=None)

    console.take(json.dumps({"event": "journal", "level": "info", "record": record}).encode())

    assert len(err.lines) == 1


def test_live_screen_during_the_boot() -> None:
    """While the node boots, log lines go above the picture; then it stays and the notes follow."""
    out, err, picture = Recorder(is_terminal=True), Recorder(is_terminal=True), Picture()
    console = Console(out=out, err=err, screen=picture)

    console.take(journal("component:state", "core/vm", state="starting", phase=4))
    console.take(LOG)
    console.redraw()
    during = (console.is_moving, list(picture.drawn), out.lines)
    console.take(COMPLETE)
    console.take(LOG)

    assert during[0]
    assert during[1][0].startswith("NovaCron is starting")
    assert during[2] == []
    assert picture.above == ["12:00:00.000  warning  core/vm            slow  wait_s=2"]
    assert picture.is_closed
    assert not console.is_moving
    assert out.lines[0] == "ready in 1.00 s"
    assert err.lines == picture.above


def test_screen_ends_when_the_boot_is_stopped() -> None:
    """Ctrl-C during the boot leaves the picture as it is and says that the node stops."""
    out, picture = Recorder(is_terminal=True), Picture()
    console = Console(out=out, err=Recorder(is_terminal=True), screen=picture)

    console.take(journal("node:stopping", cause="SIGINT"))

    assert picture.is_closed
    assert out.lines == ["stopping: SIGINT"]


def test_lines_are_put_together_and_bounded() -> None:
    """A line may come in pieces; one that is too long is cut and its rest dropped."""
    splitter = LineSplitter()

    assert splitter.feed(b"on") == []
    assert splitter.feed(b"e\n\ntwo\nth") == [b"one", b"two"]
    assert splitter.feed(b"ree\n") == [b"three"]
    (cut,) = splitter.feed(b"x" * (LINE_BYTES_MAX + 1))
    assert len(cut) == LINE_BYTES_MAX
    assert splitter.feed(b"x" * 99) == []
    assert splitter.feed(b"xx\nnext\nlast") == [b"next"]
    assert splitter.end() == [b"last"]
    assert splitter.end() == []


def test_line_of_exactly_the_limit_is_whole() -> None:
    """The limit itself is allowed."""
    data = b"y" * LINE_BYTES_MAX

    assert LineSplitter().feed(data + b"\n") == [data]


def test_output_that_has_gone_is_no_error(tmp_path: Path) -> None:
    """What can't be written is dropped."""
    descriptor = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    stream = Stream(descriptor, {})
    os.close(descriptor)

    stream.write(b"lost")
