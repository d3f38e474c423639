"""Lines of text for a person: spans with a tone, measured in terminal cells.

A renderer returns lines; only the edge that prints them knows whether there is colour. Text that
comes from elsewhere (a reason, a log field) passes ``printable`` first, so that nothing in it can
steer the operator's terminal.
"""

from __future__ import annotations

import enum
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


class Tone(enum.Enum):
    """What a span means; the value is its ANSI SGR parameter."""

    PLAIN = ""
    STRONG = "1"
    FAINT = "2"
    GOOD = "32"
    CAUTION = "33"
    BAD = "31"
    NOTE = "36"
    MARK = "7"


@dataclass(frozen=True, slots=True)
class Span:
    """Some text in one tone."""

    text: str
    tone: Tone = Tone.PLAIN


Line = tuple[Span, ...]

_RESET = "\x1b[0m"
# What a terminal without UTF-8 shows for the characters that our renderers draw with.
_ASCII = str.maketrans({"├": "|", "└": "`", "│": "|", "─": "-", "█": "#", "·": "-", "…": "~",
                        "✓": "+", "✗": "x", "▸": ">", "→": ">"})  # fmt: skip


def line(*parts: Span | str) -> Line:
    """A line of spans; a bare text is a plain one, an empty text is left out."""
    spans = (part if isinstance(part, Span) else Span(part) for part in parts)
    return tuple(span for span in spans if span.text)


def to_plain(spans: Line) -> str:
    """The line's text alone."""
    return "".join(span.text for span in spans).rstrip()


def to_ansi(spans: Line) -> str:
    """The line with ANSI colours."""
    return "".join(
        f"\x1b[{span.tone.value}m{span.text}{_RESET}" if span.tone.value else span.text
        for span in spans
    )


def to_ascii(text: str) -> str:
    """Replace the characters we draw with by ASCII ones."""
    return text.translate(_ASCII)


def can_draw(encoding: str | None) -> bool:
    """Tell whether a stream of this encoding can show what our renderers draw."""
    try:
        "├└│─█·…✓✗▸→".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def locale_encoding(environment: Mapping[str, str]) -> str:
    """The encoding that the locale's variables name; the C locale counts as UTF-8."""
    names = ("LC_ALL", "LC_CTYPE", "LANG")
    locale = next((value for name in names if (value := environment.get(name))), "")
    return locale.partition(".")[2].partition("@")[0] or "utf-8"


def wants_colour(environment: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Tell whether to colour: on a terminal that can, unless NO_COLOR is set.

    Source: no-color.org, "when present and not an empty string".
    """
    dumb = environment.get("TERM", "") in ("", "dumb", "unknown")
    return is_terminal and not dumb and not environment.get("NO_COLOR")


def printable(text: str) -> str:
    """Show control characters as escapes, so that foreign text can't steer a terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def cells(text: str) -> int:
    """Columns of a terminal that the text takes."""
    if text.isascii():
        return len(text)
    return sum(_char_cells(char) for char in text)


def _char_cells(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def crop(spans: Line, width: int) -> Line:
    """The line cut to ``width`` cells, ending in an ellipsis where something is missing."""
    if sum(cells(span.text) for span in spans) <= width:
        return spans
    kept: list[Span] = []
    left = max(width - 1, 0)
    for span in spans:
        text = _head(span.text, left)
        left -= cells(text)
        kept.append(Span(text, span.tone))
        if text != span.text:
            break
    return line(*kept, "…" if width else "")


def _head(text: str, width: int) -> str:
    used = 0
    for index, char in enumerate(text):
        used += _char_cells(char)
        if used > width:
            return text[:index]
    return text


def pad(text: str, width: int, *, right: bool = False) -> str:
    """The text filled up with spaces to ``width`` cells; ``right`` aligns it to the right."""
    fill = " " * max(width - cells(text), 0)
    return fill + text if right else text + fill


def wrap(text: str, width: int) -> list[str]:
    """The text in lines of at most ``width`` cells where its words allow; at least one line."""
    import textwrap  # where all is well, there is nothing to wrap

    return textwrap.wrap(printable(text), max(width, 20), break_long_words=False) or [""]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: its head.
        right: aligned to the right, as numbers are.
        rank: when the table is too wide, the columns with the highest rank go first; 0 stays.
    """

    title: str
    right: bool = False
    rank: int = 0


def table(
    columns: tuple[Column, ...], rows: Iterable[tuple[Span, ...]], *, width: int
) -> list[Line]:
    """Rows under their heads, as wide as they need; the first line is the head.

    Args:
        columns: one per cell of each row.
        rows: cells, in the order of ``columns``.
        width: cells of the screen. Gaps shrink first, then columns go by their rank.
    """
    cellular = [tuple(Span(column.title, Tone.STRONG) for column in columns), *rows]
    widths = [max(cells(row[i].text) for row in cellular) for i in range(len(columns))]
    shown = list(range(len(columns)))
    gap = 2
    while sum(widths[i] for i in shown) + gap * (len(shown) - 1) > width:
        if gap == 2:
            gap = 1
            continue
        worst = max(shown, key=lambda i: columns[i].rank)
        if columns[worst].rank == 0:
            break
        shown.remove(worst)
    return [_row(row, [(columns[i], widths[i], i) for i in shown], gap) for row in cellular]


def _row(row: tuple[Span, ...], shown: list[tuple[Column, int, int]], gap: int) -> Line:
    spans: list[Span] = []
    for position, (column, width, index) in enumerate(shown):
        cell = row[index]
        is_last = position == len(shown) - 1
        text = (
            cell.text if is_last and not column.right else pad(cell.text, width, right=column.right)
        )
        spans += [Span(" " * gap if position else ""), Span(text, cell.tone)]
    return line(*spans)
