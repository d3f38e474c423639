"""The process that shows the node's log lines to whoever started it.

It reads JSON lines from a pipe that all processes of the node write to without ever waiting, so a
terminal that is slow, stopped or gone holds up this process alone. It passes lines through to a
stream that is no terminal, and renders them on one that is. Journal records among them become the
progress display of the boot: drawn anew while it lasts where standard output is a terminal, plain
lines anywhere else. It ends when the last writer has closed the pipe.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from protocol.errors import RemoteProtocolError
from protocol.messages.journal import JournalRecord
from protocol.records import Plain, from_wire
from services.ctl.logentry import parse_moment
from services.ctl.logline import clock, render_log
from services.ctl.styled import (
    Line,
    can_draw,
    locale_encoding,
    printable,
    to_ansi,
    to_ascii,
    to_plain,
    wants_colour,
)
from services.node.progress import Progress

# A process's traceback fits; a longer line is cut, so that memory stays bounded.
LINE_BYTES_MAX = 1 << 18
_READ_BYTES = 1 << 16
# The picture is drawn this often while the node boots, which needs the processors itself.
_REDRAW_S = 0.1
_QUIET_LEVELS = frozenset(("debug", "info"))

Write = Callable[[bytes], None]


def run(read_fd: int, *, stdout_fd: int, stderr_fd: int) -> None:
    """Copy log lines to the operator until the pipe ends; the body of a process of its own.

    Args:
        read_fd: reading end of the pipe; whoever starts this closes the writing end here.
        stdout_fd: where progress is shown.
        stderr_fd: where log lines are shown.
    """
    # Who stops the node stops this one by closing the pipe, after its last words.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    out, err = Stream(stdout_fd, os.environ), Stream(stderr_fd, os.environ)
    pump(read_fd, Console(out=out, err=err, screen=_open_screen(out, os.environ)))


class Screen(Protocol):
    """A region at the end of a terminal that is drawn over and over."""

    def draw(self, lines: Iterable[Line]) -> None:
        """Replace the picture."""

    def print_above(self, lines: Iterable[Line]) -> None:
        """Print lines that stay, above the picture."""

    def close(self) -> None:
        """Leave the last picture where it is."""


class Stream:
    """An output that is never worth dying for: what can't be written is dropped.

    Args:
        descriptor: where to.
        environment: TERM, NO_COLOR and the locale's variables.
    """

    def __init__(self, descriptor: int, environment: Mapping[str, str]) -> None:
        self.descriptor = descriptor
        self.is_terminal = os.isatty(descriptor)
        self._has_colour = wants_colour(environment, is_terminal=self.is_terminal)
        self._can_draw = can_draw(locale_encoding(environment))

    def write(self, data: bytes) -> None:
        """Write all of it, waiting as long as it takes; drop it if the other end has gone."""
        try:
            while data:
                data = data[os.write(self.descriptor, data) :]
        except OSError:  # EPIPE, EIO: a reader or terminal that has gone
            return

    def show(self, lines: Iterable[Line]) -> None:
        """Write lines in colour where there is any."""
        self.write_text(
            "".join(
                f"{to_ansi(spans) if self._has_colour else to_plain(spans)}\n" for spans in lines
            )
        )

    def write_text(self, text: str) -> None:
        """Write text with the characters that this output can show."""
        self.write((text if self._can_draw else to_ascii(text)).encode("utf-8", "replace"))


class Console:
    """Decides what of each line is shown where.

    Args:
        out: standard output, for progress.
        err: standard error, for log lines.
        screen: a live picture on standard output; None where it is no terminal that can do that.
    """

    def __init__(self, *, out: Stream, err: Stream, screen: Screen | None) -> None:
        self._out = out
        self._err = err
        self._screen = screen
        self._progress = Progress()

    @property
    def is_moving(self) -> bool:
        """Whether there is a picture that wants to be redrawn from time to time."""
        return self._screen is not None

    def take(self, data: bytes) -> None:
        """Show one line, without its newline."""
        fields = _fields(data)
        record = _journal_record(fields)
        if not self._err.is_terminal:
            self._err.write(data + b"\n")
        elif record is None or fields.get("level") not in _QUIET_LEVELS:
            self._log(data, fields)
        if record is not None:
            self._tell(record)

    def redraw(self) -> None:
        """Draw the picture with the present times."""
        if self._screen is not None:
            self._screen.draw(self._progress.screen(time.time()))

    def close(self) -> None:
        """Leave the screen in order."""
        if self._screen is not None:
            self._screen.close()
            self._screen = None

    def _tell(self, record: JournalRecord) -> None:
        told = self._progress.take(record)
        if self._screen is None:
            self._out.show((*told.steps, *told.notes))
            return
        if self._progress.is_over or record.name == "node:stopping":
            self.redraw()
            self.close()
        if told.notes:
            self._print_beside(told.notes)

    def _log(self, data: bytes, fields: Mapping[str, Plain]) -> None:
        if not fields:
            text = printable(data.decode("utf-8", "replace"))
            self._err.write(text.encode("utf-8", "replace") + b"\n")
            return
        lines = render_log(fields, stamp=_stamp(fields))
        if self._screen is not None:
            self._screen.print_above(lines)
        else:
            self._err.show(lines)

    def _print_beside(self, lines: Iterable[Line]) -> None:
        if self._screen is not None:
            self._screen.print_above(lines)
        else:
            self._out.show(lines)


def pump(read_fd: int, console: Console) -> None:
    """Feed a console with the lines of a pipe until its end, and keep its picture moving."""
    poller = select.poll()
    poller.register(read_fd, select.POLLIN)
    lines = LineSplitter()
    redraw_at_s = time.monotonic()
    try:
        while True:
            wait_ms = None
            if console.is_moving:
                if (left_s := redraw_at_s - time.monotonic()) <= 0:
                    console.redraw()
                    redraw_at_s = time.monotonic() + _REDRAW_S
                    continue
                wait_ms = int(left_s * 1000) + 1
            if not poller.poll(wait_ms):
                continue
            data = os.read(read_fd, _READ_BYTES)
            for text in lines.feed(data) if data else lines.end():
                console.take(text)
            if not data:
                return
    finally:
        console.close()


class LineSplitter:
    """Bytes to lines; one over LINE_BYTES_MAX is cut, and its rest is dropped."""

    def __init__(self) -> None:
        self._partial = b""
        self._is_dropping = False

    def feed(self, data: bytes) -> list[bytes]:
        """Lines that are complete by these bytes, without newlines; empty ones are left out."""
        *whole, tail = data.split(b"\n")
        lines: list[bytes] = []
        for text in whole:
            if not self._is_dropping:
                lines.append((self._partial + text)[:LINE_BYTES_MAX])
            self._partial, self._is_dropping = b"", False
        if not self._is_dropping:
            self._partial += tail
            if len(self._partial) > LINE_BYTES_MAX:
                lines.append(self._partial[:LINE_BYTES_MAX])
                self._partial, self._is_dropping = b"", True
        return [text for text in lines if text]

    def end(self) -> list[bytes]:
        """What is left without a newline."""
        partial, self._partial = self._partial, b""
        return [partial] if partial else []


def _fields(data: bytes) -> dict[str, Plain]:
    """The fields of a JSON line; empty for anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _journal_record(fields: Mapping[str, Plain]) -> JournalRecord | None:
    if fields.get("event") != "journal":
        return None
    try:
        return from_wire(JournalRecord, fields.get("record"))
    except RemoteProtocolError:
        return None


def _stamp(fields: Mapping[str, Plain]) -> str:
    return clock(parse_moment(fields.get("timestamp")) or time.time())


def _open_screen(out: Stream, environment: Mapping[str, str]) -> Screen | None:
    """A live screen where the output is a terminal that can move its cursor."""
    if not out.is_terminal or environment.get("TERM", "") in ("", "dumb", "unknown"):
        return None
    from services.node.screen import RichScreen

    return RichScreen(out)
