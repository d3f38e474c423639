"""Durations as people write them: ``30s``, ``4h``, ``500ms``, ``1h30m``; inside, float seconds."""

from __future__ import annotations

import itertools
import re

DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
EXAMPLES = ("500ms", "30s", "5m", "4h", "90d")

# A duration longer than this many characters is no duration; it also keeps floats finite.
_TEXT_MAX = 32
_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")


def parse_duration(text: str) -> float:
    """Turn a written duration into seconds.

    Args:
        text: numbers with their units, largest unit first, each unit once; a number may have a
            fraction. Spaces, signs and bare numbers are refused.

    Raises:
        ValueError: the text is no duration.
    """
    parts = _PART.findall(text) if len(text) <= _TEXT_MAX else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text[:_TEXT_MAX]!r} is no duration")
    sizes = [_UNITS_MS[unit] for _, unit in parts]
    if any(later >= earlier for earlier, later in itertools.pairwise(sizes)):
        raise ValueError(f"{text!r} does not name its units from the largest to the smallest")
    return sum(float(number) * _UNITS_MS[unit] for number, unit in parts) / 1000


def format_duration(seconds: float) -> str:
    """Write seconds the way ``parse_duration`` reads them, exact to the millisecond.

    Days appear from two days on, so that ``24h`` stays what it was.
    """
    rest_ms = round(seconds * 1000)
    if rest_ms == 0:
        return "0s"
    text = ""
    for unit, size_ms in _UNITS_MS.items():
        if unit == "d" and rest_ms < 2 * size_ms:
            continue
        count, rest_ms = divmod(rest_ms, size_ms)
        text += f"{count}{unit}" if count else ""
    return text
