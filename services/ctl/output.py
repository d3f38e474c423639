"""The edge to the operator's screen: the only place that knows terminals, colour and width."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import click

from protocol.records import Plain
from services.ctl.styled import Line, can_draw, to_ansi, to_ascii, to_plain, wants_colour

_WIDTH_DEFAULT = 80
_WIDTH_MIN = 40


def is_terminal() -> bool:
    """Tell whether standard output is a terminal."""
    return sys.stdout.isatty()


def width() -> int:
    """Columns of the screen; 80 where there is none. COLUMNS overrides both."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit():
        return max(int(columns), _WIDTH_MIN)
    try:
        found = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):  # no terminal, or no descriptor at all
        found = 0
    return max(found or _WIDTH_DEFAULT, _WIDTH_MIN)


def show(lines: Iterable[Line]) -> None:
    """Print lines, coloured where the terminal and the operator want it, and flush."""
    colour = wants_colour(os.environ, is_terminal=is_terminal())
    draw = can_draw(sys.stdout.encoding)
    for spans in lines:
        text = to_ansi(spans) if colour else to_plain(spans)
        click.echo(text if draw else to_ascii(text), color=colour)


def show_json(value: Plain, *, indent: int | None = None) -> None:
    """Print one JSON value; on one line unless an indent is given."""
    import json  # what is run most prints a screen

    click.echo(json.dumps(value, ensure_ascii=False, indent=indent))


def note(message: str) -> None:
    """Tell the operator something that is not the command's result, on standard error."""
    click.echo(message, err=True)
