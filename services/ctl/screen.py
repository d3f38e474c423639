"""A whole terminal that is drawn again and again: keys in, frames out, given back as it was.

On leaving by any way that a program can notice (the end, Ctrl-C, SIGTERM, an error, Ctrl-Z) the
terminal has its old contents, cursor and modes.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import FrameType, TracebackType

from services.ctl.styled import (
    Line,
    can_draw,
    crop,
    line,
    to_ansi,
    to_ascii,
    to_plain,
    wants_colour,
)

# What ``wait`` returns when the terminal has another size now.
RESIZED = "resized"

_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?1049l\x1b[?25h"
# What a terminal sends for a key without a character. Source: ECMA-48, control sequences.
_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?")
_KEYS_BYTES_MAX = 64


class Screen:
    """Takes the terminal for as long as its ``with`` block lasts."""

    def __init__(self) -> None:
        self._keys_fd = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
        self._modes: list[int | list[bytes | int]] | None = None
        self._has_colour = wants_colour(os.environ, is_terminal=True)
        self._can_draw = can_draw(sys.stdout.encoding)
        self._handlers: dict[int, object] = {}
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._pressed: list[str] = []

    def __enter__(self) -> Screen:
        """Switch to the terminal's second page, without echo and line editing."""
        for number, take in (
            (signal.SIGTERM, _end),
            (signal.SIGHUP, _end),
            (signal.SIGTSTP, self._pause),
            (signal.SIGWINCH, self._resize),
        ):
            self._handlers[number] = signal.signal(number, take)
        self._take_terminal()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the terminal back."""
        self._give_terminal()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # it came from signal itself
        os.close(self._wake_read)
        os.close(self._wake_write)

    @property
    def width(self) -> int:
        """Columns."""
        return self._size()[0]

    @property
    def takes_keys(self) -> bool:
        """Whether somebody can press keys."""
        return self._keys_fd is not None

    def draw(self, lines: Sequence[Line]) -> None:
        """Show the lines, as many and as much of each as there is room for."""
        width, height = self._size()
        shown = list(lines)
        if len(shown) > height:
            left = len(shown) - height + 1
            shown = [*shown[: height - 1], line(f"… {left} more lines")]
        text = "\x1b[K\r\n".join(self._text(crop(spans, width)) for spans in shown)
        self._write(f"\x1b[H{text}\x1b[K\x1b[J")

    def wait(self, timeout_s: float) -> str:
        """Wait for a key; "" when none came in time, RESIZED when the size is another one.

        Keys without a character, such as the arrows, count for nothing.
        """
        if self._pressed:
            return self._pressed.pop(0)
        sources = [self._wake_read]
        if self._keys_fd is not None:
            sources.append(self._keys_fd)
        ready, _out, _failed = select.select(sources, [], [], max(timeout_s, 0.0))
        if self._wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            return RESIZED
        if ready:
            self._read_keys()
        return self._pressed.pop(0) if self._pressed else ""

    # -- keys and signals -----------------------------------------------------------------------

    def _read_keys(self) -> None:
        assert self._keys_fd is not None
        try:
            data = os.read(self._keys_fd, _KEYS_BYTES_MAX)
        except OSError:  # EIO: the terminal has gone
            data = b""
        if not data:
            self._keys_fd = None  # nobody is there any more
        else:
            text = _SEQUENCE.sub("", data.decode("utf-8", "ignore"))
            self._pressed += [char for char in text if char.isprintable()]

    def _resize(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def _pause(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z: the shell gets its terminal, and we take it again when we are continued."""
        self._give_terminal()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take_terminal()
        self._resize(number, frame)

    # -- the terminal ---------------------------------------------------------------------------

    def _take_terminal(self) -> None:
        if self._keys_fd is not None:
            self._modes = termios.tcgetattr(self._keys_fd)
            tty.setcbreak(self._keys_fd)
        self._write(_ENTER)

    def _give_terminal(self) -> None:
        with contextlib.suppress(OSError):  # a terminal that has gone needs nothing back
            self._write(_LEAVE)
        if self._keys_fd is not None and self._modes is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._keys_fd, termios.TCSADRAIN, self._modes)

    def _size(self) -> tuple[int, int]:
        try:
            found = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return 80, 24
        return found.columns or 80, found.lines or 24

    def _text(self, spans: Line) -> str:
        text = to_ansi(spans) if self._has_colour else to_plain(spans)
        return text if self._can_draw else to_ascii(text)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
