"""How far a long command is: one line on a terminal that is written over, nothing elsewhere."""

from __future__ import annotations

import sys
import time

from services.ctl.amounts import size

_PERIOD_S = 0.1
_ERASE_LINE = "\r\x1b[K"


class Progress:
    """Shows amounts on the standard error stream while they grow; use it as a context manager."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._next_s = 0.0
        self._has_drawn = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._has_drawn:
            self._write(_ERASE_LINE)

    def show(self, what: str, done_bytes: int, total_bytes: int, *, is_share: bool = True) -> None:
        """Say how far it is.

        Args:
            what: is done.
            done_bytes: so far.
            total_bytes: in all.
            is_share: the first becomes the second in the end.
        """
        now_s = time.monotonic()
        if not self._is_shown or now_s < self._next_s:
            return
        self._next_s = now_s + _PERIOD_S
        of = f"{size(done_bytes)} of {size(total_bytes)}"
        if is_share and total_bytes:
            of += f", {min(100, 100 * done_bytes // total_bytes)} %"
        elif not is_share:
            of = f"{size(done_bytes)} written, the database has {size(total_bytes)}"
        self._write(f"{_ERASE_LINE}{what}: {of}")
        self._has_drawn = True

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
