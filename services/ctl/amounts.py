"""Durations and sizes as a person reads them: short, and never a timestamp."""

from __future__ import annotations

_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400


def age(seconds: float) -> str:
    """How long ago or since when, in at most seven characters: ``45s``, ``3h 12m``, ``2d 4h``."""
    whole = max(int(seconds), 0)
    if whole < _MINUTE_S:
        return f"{whole}s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S}m {whole % _MINUTE_S}s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S}h {whole % _HOUR_S // _MINUTE_S}m"
    if whole < 100 * _DAY_S:
        return f"{whole // _DAY_S}d {whole % _DAY_S // _HOUR_S}h"
    return f"{whole // _DAY_S}d"


def took(seconds: float) -> str:
    """How long something took, to the hundredth below a minute: ``0.31 s``, ``2m 5s``."""
    return f"{max(seconds, 0.0):.2f} s" if seconds < _MINUTE_S else age(seconds)


def size(size_bytes: int) -> str:
    """An amount of memory or data: ``812 KiB``, ``34 MiB``, ``1.2 GiB``."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1000 or unit == "TiB":
            break
        amount /= 1024
    text = f"{amount:.1f}" if amount < 10 and unit not in ("B", "KiB") else f"{amount:.0f}"
    return f"{text} {unit}"
