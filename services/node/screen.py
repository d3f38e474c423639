"""The live picture of a boot, drawn by rich; imported only where there is a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from services.ctl.styled import Line, crop, to_ansi

if TYPE_CHECKING:
    from services.node.console import Stream


class RichScreen:
    """A services.node.console.Screen on a terminal.

    Args:
        out: the terminal.
    """

    def __init__(self, out: Stream) -> None:
        file = _File(out)
        self._console = Console(
            file=file,  # type: ignore[arg-type]  # what rich uses of a file is there
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._live.start()

    def draw(self, lines: Iterable[Line]) -> None:
        """Replace the picture."""
        width = self._console.width
        self._live.update(_text(crop(spans, width) for spans in lines), refresh=True)

    def print_above(self, lines: Iterable[Line]) -> None:
        """Print lines that stay, above the picture."""
        self._console.print(_text(lines), soft_wrap=True)

    def close(self) -> None:
        """Leave the last picture where it is."""
        self._live.stop()


class _File:
    """The terminal as rich wants it; a terminal that has gone raises nothing."""

    encoding = "utf-8"

    def __init__(self, out: Stream) -> None:
        self._out = out

    def write(self, text: str) -> int:
        self._out.write_text(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def fileno(self) -> int:
        return self._out.descriptor

    def isatty(self) -> bool:
        return True


def _text(lines: Iterable[Line]) -> Text:
    return Text.from_ansi("\n".join(to_ansi(spans) for spans in lines), no_wrap=True)
