"""What the kernel says of processes and of the machine; parsers are pure, the rest reads /proc.

What this user may not read, and what has ended meanwhile, is None and never an error.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One process at one moment.

    Attributes:
        start_ticks: when it was started; with the pid it names the process for ever.
        cpu_s: processor time that it has used.
        resident_bytes: memory in RAM, shared pages counted whole.
        proportional_bytes: memory in RAM, shared pages counted by share; None unless asked for.
        fds: open descriptors; None where this user may not look.
    """

    pid: int
    start_ticks: int
    cpu_s: float
    resident_bytes: int
    threads: int
    proportional_bytes: int | None = None
    fds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The host: processors, load averages of 1, 5 and 15 minutes, memory."""

    cpus: int
    load: tuple[float, ...]
    memory_total_bytes: int
    memory_available_bytes: int


def read_process(pid: int, *, is_proportional: bool, proc: Path = Path("/proc")) -> Reading | None:
    """Read one process; None when it has ended or may not be looked at.

    Args:
        pid: the process.
        is_proportional: also read its proportional memory, which takes the kernel a millisecond.
        proc: where /proc is mounted.
    """
    place = proc / str(pid)
    try:
        stat = (place / "stat").read_text()
    except OSError:
        return None
    proportional = _read_proportional(place) if is_proportional else None
    return parse_stat(stat, proportional_bytes=proportional, fds=_count(place / "fd"))


def read_machine(proc: Path = Path("/proc")) -> Machine:
    """Read the host; what can't be read is 0."""
    memory = parse_table(_text(proc / "meminfo"))
    load = tuple(float(word) for word in _text(proc / "loadavg").split()[:3])
    return Machine(
        cpus=os.cpu_count() or 1,
        load=load,
        memory_total_bytes=memory.get("MemTotal", 0),
        memory_available_bytes=memory.get("MemAvailable", 0),
    )


def parse_stat(
    text: str, *, proportional_bytes: int | None = None, fds: int | None = None
) -> Reading | None:
    """Read /proc/PID/stat; None for a process that has ended and for what is no such text.

    Source: proc(5). The command may hold anything, so fields are counted from its last bracket.
    """
    head, _bracket, tail = text.rpartition(")")
    fields = tail.split()
    try:
        if fields[0] in "ZX":
            return None
        return Reading(
            pid=int(head.partition(" ")[0]),
            start_ticks=int(fields[19]),
            cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
            resident_bytes=int(fields[21]) * _PAGE_BYTES,
            threads=int(fields[17]),
            proportional_bytes=proportional_bytes,
            fds=fds,
        )
    except (IndexError, ValueError):
        return None


def parse_table(text: str) -> dict[str, int]:
    """Read lines of ``Name:   12 kB`` as bytes; lines of another shape are left out."""
    found = {}
    for row in text.splitlines():
        name, _colon, rest = row.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
            found[name] = int(words[0]) * 1024
    return found


def _read_proportional(place: Path) -> int | None:
    return parse_table(_text(place / "smaps_rollup")).get("Pss")


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _count(directory: Path) -> int | None:
    try:
        return sum(1 for _ in directory.iterdir())
    except OSError:
        return None
