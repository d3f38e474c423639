"""The figures of all supervisors: JSON lines with ratios, and a table for people."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from protocol.records import Plain
from tests.bench.figures import Figure, note, show, spread

OURS = "novacron"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a measure is called in the table, its unit, and what it should be at most."""

    title: str
    unit: str
    limit: float | None = None


_FIFTY = {
    "launch": Meaning("launch of 50", "s"),
    "launch_spread": Meaning("  of that, first child to last", "s"),
    "restart": Meaning("restart of one, median", "ms"),
    "restart_worst": Meaning("  the worst", "ms"),
    "mass": Meaning("kill of 50 until 50 run", "s"),
    "stop": Meaning("stop of 50", "s"),
    "stop_all": Meaning("  and of the supervisor", "s"),
    "idle_cpu": Meaning("idle CPU", "ms/s", 0.1),
    "pss": Meaning("PSS of the supervisor", "MiB", 20.0),
}
_STORM = {
    "cpu": Meaning("CPU of the supervisor", "%", 2.0),
    "command": Meaning("slowest answer to a command", "ms", 50.0),
}
_MANY = {
    "launch": Meaning("launch of 1,000", "s", 3.0),
    "restart": Meaning("restart of one, median", "ms", 10.0),
    "pss": Meaning("PSS of the supervisor", "MiB"),
    "stop": Meaning("stop of 1,000", "s"),
}
_PYTHON_LIMITS = {"launch": 0.6, "restart": 15.0, "restart_worst": 60.0, "mass": 0.45, "stop": 0.1}
_SLEEP_LIMITS = {"launch": 0.15, "restart": 5.0, "stop": 0.05}


def _limited(limits: dict[str, float]) -> dict[str, Meaning]:
    return {
        name: Meaning(it.title, it.unit, limits.get(name, it.limit)) for name, it in _FIFTY.items()
    }


# Group, its title, and its measures, in the order of the table.
_GROUPS: dict[str, tuple[str, dict[str, Meaning]]] = {
    "sleep": ("50 `sleep`", _limited(_SLEEP_LIMITS)),
    "python": ("50 Python children", _limited(_PYTHON_LIMITS)),
    "program": ("50 Python programs, executed", _FIFTY),
    "many": ("1,000 `sleep`", _MANY),
    "storm": ("50 programs that fail at once, for ever", _STORM),
    "storm_python": ("50 Python children that fail at once, for ever", _STORM),
}


class Report:
    """Collects what was measured.

    Args:
        peers: the columns.
    """

    def __init__(self, peers: list[str]) -> None:
        self._peers = peers
        self._values: dict[tuple[str, str], dict[str, list[float]]] = {}

    def add(self, group: str, measure: str, peer: str, values: list[float]) -> None:
        """Take in one supervisor's values of a measure."""
        self._values.setdefault((group, measure), {})[peer] = values
        meaning = _GROUPS[group][1][measure]
        note(f"  {meaning.title.strip():34} {_short(statistics.median(values))} {meaning.unit}")

    def show(self, part: str) -> None:
        """Print the figures of a part of the benchmark."""
        for (group, measure), found in self._values.items():
            if group.removesuffix("_python") != part:
                continue
            meaning = _GROUPS[group][1][measure]
            middles = {peer: statistics.median(values) for peer, values in found.items()}
            ours = found.get(OURS)
            if ours is None:
                continue
            value = middles[OURS]
            others = {peer: it for peer, it in middles.items() if peer != OURS}
            shown: dict[str, Plain] = {peer: round(it, 6) for peer, it in others.items()}
            ratios: dict[str, Plain] = {
                peer: round(it / value, 2) for peer, it in others.items() if value
            }
            show(
                Figure(
                    name=f"supervisor_{group}_{measure}",
                    value=value,
                    unit=meaning.unit,
                    limit=meaning.limit,
                    median_of=len(ours),
                    details={"spread": spread(ours), "peers": shown, "ratios": ratios},
                )
            )

    def table(self) -> None:
        """Print all figures as a table in Markdown."""
        if not self._values:
            return
        note("")
        note("| | unit | limit | " + " | ".join(self._peers) + " |")
        note("|---|---|---|" + "---|" * len(self._peers))
        for group, (title, measures) in _GROUPS.items():
            if not any(known == group for known, _measure in self._values):
                continue
            note(f"| **{title}** | | |" + " |" * len(self._peers))
            for measure, meaning in measures.items():
                found = self._values.get((group, measure))
                if found is None:
                    continue
                cells = [
                    _short(statistics.median(found[peer])) if peer in found else "-"
                    for peer in self._peers
                ]
                limit = "" if meaning.limit is None else f"{meaning.limit:g}"
                name = meaning.title.replace("  ", "… ")
                note(f"| {name} | {meaning.unit} | {limit} | " + " | ".join(cells) + " |")


def _short(value: float) -> str:
    """Three digits that count."""
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"
