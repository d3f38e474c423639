"""Durations as people write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.config.durations import DURATION_PATTERN, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30.0),
        ("5m", 300.0),
        ("4h", 14400.0),
        ("24h", 86400.0),
        ("90d", 7776000.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("1m500ms", 60.5),
        ("0s", 0.0),
    ],
)
def test_written_durations_become_seconds(text: str, seconds: float) -> None:
    """Every unit, a fraction, and several units together are understood."""
    assert parse_duration(text) == seconds
    assert re.search(DURATION_PATTERN, text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "30", "s", "30 s", " 30s", "30s ", "-30s", "+30s", "30S", "30sec", "1h30", "30s\n"),
        *("1m1h", "1s1s", "1e3s", ".5s", "5.s", "1,5s", "٣s", "9" * 40 + "s"),
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    """A bare number, a sign, a space, a wrong order and other digits are no durations."""
    with pytest.raises(ValueError, match=r"duration|units"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=400 * 86_400_000))
def test_writing_and_reading_gives_the_same(milliseconds: int) -> None:
    """What is written is read again as the same number of milliseconds."""
    seconds = milliseconds / 1000

    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(86400.0, "24h"), (172800.0, "2d"), (5400.0, "1h30m"), (0.5, "500ms")]
)
def test_durations_are_written_as_people_do(seconds: float, text: str) -> None:
    """A day stays 24h, and only units that count appear."""
    assert format_duration(seconds) == text
