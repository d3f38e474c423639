"""Spans, tables and what protects a terminal from foreign text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ctl.amounts import age, size, took
from services.ctl.styled import (
    Column,
    Span,
    Tone,
    can_draw,
    cells,
    crop,
    line,
    locale_encoding,
    pad,
    printable,
    table,
    to_ansi,
    to_ascii,
    to_plain,
    wants_colour,
    wrap,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1.0, "0s"),
        (59.9, "59s"),
        (60.0, "1m 0s"),
        (3599.0, "59m 59s"),
        (3600.0, "1h 0m"),
        (86_400.0 * 2 + 4 * 3600, "2d 4h"),
        (86_400.0 * 99 + 23 * 3600, "99d 23h"),
        (86_400.0 * 100, "100d"),
    ],
)
def test_age(seconds: float, text: str) -> None:
    """An age is at most seven characters long."""
    assert age(seconds) == text
    assert len(text) <= 7


@pytest.mark.parametrize(
    ("seconds", "text"), [(-0.1, "0.00 s"), (0.314, "0.31 s"), (59.99, "59.99 s"), (60, "1m 0s")]
)
def test_took(seconds: float, text: str) -> None:
    """A duration is exact to the hundredth below a minute."""
    assert took(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KiB"),
        (812 * 1024, "812 KiB"),
        (1 << 20, "1.0 MiB"),
        (34 << 20, "34 MiB"),
        (1001 << 20, "1.0 GiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_size(amount: int, text: str) -> None:
    """A size has at most three digits, and a fraction only where it says something."""
    assert size(amount) == text


@given(st.text())
def test_printable_has_no_control_character(text: str) -> None:
    """Whatever a node or a file says, nothing in it can steer the terminal."""
    shown = printable(text)

    assert shown.isprintable()
    assert shown == text or not text.isprintable()


@given(st.text(), st.integers(min_value=0, max_value=30))
def test_crop_never_exceeds_the_width(text: str, width: int) -> None:
    """A cropped line fits, wide characters included."""
    cropped = crop(line(Span(printable(text)), Span("tail", Tone.BAD)), width)

    assert sum(cells(span.text) for span in cropped) <= width


def test_crop_says_that_something_is_missing() -> None:
    """A cut line ends in an ellipsis; one that fits stays as it is."""
    spans = line("abc", Span("defg", Tone.GOOD))

    assert to_plain(crop(spans, 7)) == "abcdefg"
    assert to_plain(crop(spans, 6)) == "abcde…"
    assert crop(spans, 2)[0].tone is Tone.PLAIN


def test_cells_counts_wide_and_combining_characters() -> None:
    """A CJK character takes two columns, a combining accent none."""
    assert cells("東京") == 4
    assert cells("e\u0301") == 1
    assert pad("東", 4) == "東  "


def test_ansi_and_plain() -> None:
    """The same line with and without colour."""
    spans = line(Span("up", Tone.GOOD), " ", "", "now ")

    assert to_ansi(spans) == "\x1b[32mup\x1b[0m now "
    assert to_plain(spans) == "up now"


@pytest.mark.parametrize(
    ("environment", "is_terminal", "wanted"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
    ],
)
def test_colour(environment: dict[str, str], is_terminal: bool, wanted: bool) -> None:
    """Colour is for terminals that can, unless NO_COLOR holds anything."""
    assert wants_colour(environment, is_terminal=is_terminal) is wanted


def test_terminals_without_utf8_get_ascii() -> None:
    """What we draw with has a stand-in of the same width."""
    assert can_draw("utf-8")
    assert not can_draw("latin-1")
    assert not can_draw(None)
    assert not can_draw("no such encoding")
    assert to_ascii("│  └─ vm ✓ █·") == "|  `- vm + #-"


@pytest.mark.parametrize(
    ("environment", "encoding"),
    [
        ({}, "utf-8"),
        ({"LANG": "C"}, "utf-8"),
        ({"LANG": "de_DE.ISO-8859-1"}, "ISO-8859-1"),
        ({"LANG": "de_DE.ISO-8859-1", "LC_ALL": "en_US.UTF-8"}, "UTF-8"),
        ({"LC_CTYPE": "de_DE.ISO-8859-15@euro"}, "ISO-8859-15"),
    ],
)
def test_locale_encoding(environment: dict[str, str], encoding: str) -> None:
    """LC_ALL wins over LC_CTYPE wins over LANG."""
    assert locale_encoding(environment) == encoding


def test_table_shrinks_gaps_before_columns() -> None:
    """Gaps shrink first, then the columns of the highest rank go, rank 0 never does."""
    columns = (Column("NAME"), Column("A", right=True, rank=1), Column("B", rank=2))
    rows = [(Span("vm"), Span("7"), Span("long"))]

    def drawn(width: int) -> list[str]:
        return [to_plain(spans) for spans in table(columns, rows, width=width)]

    assert drawn(13) == ["NAME  A  B", "vm    7  long"]
    assert drawn(12) == ["NAME A B", "vm   7 long"]
    assert drawn(10) == ["NAME A", "vm   7"]
    assert drawn(1) == ["NAME", "vm"]


def test_wrap_keeps_long_words_whole() -> None:
    """A path that is longer than the line is not torn apart, so that it can be copied."""
    path = "/var/lib/novacron/a/very/long/path"

    assert wrap(f"no file {path}", 20) == ["no file", path]
    assert wrap("", 20) == [""]
