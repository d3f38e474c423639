"""Reads what guests show, and tells what is missing: ticks, disk blocks, pages, packets.

Pure where it can be: bytes in, findings out. ``Watch`` and ``Probe`` look on while a guest runs.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

BLOCK_BYTES = 4096
_MAGIC = 0x4E6F766143726F6E
_MASK = (1 << 64) - 1
_TICK = re.compile(
    rb"^tick (\d+) mono_ms=(\d+) wall_ms=(\d+) disk=(\d+) pages=(\d+) bad=(\d+) echoed=(\d+)\r?$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One line of a guest's console; tests/lab/guest/guest.c says what the values are."""

    number: int
    mono_ms: int
    wall_ms: int
    disk: int
    pages: int
    bad: int
    echoed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """What a console has said, in the order of the ticks.

    Attributes:
        ticks: of all lives, one life after the other.
        lives: how often the count began.
    """

    ticks: tuple[Tick, ...]
    lives: int

    @property
    def lost(self) -> list[int]:
        """Numbers of ticks that are missing within the last life."""
        life = self.last_life
        return sorted(set(range(1, life[-1].number + 1)) - {tick.number for tick in life})

    @property
    def last_life(self) -> tuple[Tick, ...]:
        """The ticks since the guest was started last."""
        begin = max((at for at, tick in enumerate(self.ticks) if tick.number == 1), default=0)
        return self.ticks[begin:]

    @property
    def gap_max_ms(self) -> int:
        """Longest time between two ticks that follow each other, by the guest's own clock."""
        life = self.last_life
        return max((b.mono_ms - a.mono_ms for a, b in itertools.pairwise(life)), default=0)


def parse_line(line: bytes) -> Tick | None:
    """The tick of a line, if it is one."""
    match = _TICK.match(line)
    if match is None:
        return None
    number, mono, wall, disk, pages, bad, echoed = map(int, match.groups())
    return Tick(
        number=number, mono_ms=mono, wall_ms=wall, disk=disk, pages=pages, bad=bad, echoed=echoed
    )


def parse_ticks(parts: Sequence[bytes]) -> Console:
    """What a guest has said, from its consoles on several hosts.

    Within one part a smaller number begins a new life. A guest that was moved goes on in another
    part, so parts are joined by number; and where a move cut a line in two, its halves are. One
    that came back to a host may seem to have lost the lines cut then: ``Watch`` sees them whole.
    """
    lives: list[list[list[Tick]]] = []
    for part in parts:
        mine: list[list[Tick]] = []
        for tick in filter(None, map(parse_line, part.split(b"\n"))):
            if mine and tick.number > mine[-1][-1].number:
                mine[-1].append(tick)
            else:
                mine.append([tick])
        lives.append(mine)
    # The life before the last one can't have been moved: what is on one host is enough for it.
    starts = [life for mine in lives for life in mine if life[0].number == 1]
    ticks: dict[int, Tick] = {tick.number: tick for tick in _joined(parts)}
    for mine in lives:
        ticks.update({tick.number: tick for tick in (mine[-1] if mine else [])})
    earlier = [tick for life in starts[:-1] for tick in life]
    last = [ticks[number] for number in sorted(ticks)]
    return Console(ticks=tuple(earlier + last), lives=len(starts))


def _joined(parts: Sequence[bytes]) -> list[Tick]:
    """The lines of which one part has the beginning and another one the end."""
    pairs = itertools.permutations(parts, 2)
    lines = [a.rpartition(b"\n")[2] + b.partition(b"\n")[0] for a, b in pairs if a and b]
    return [tick for line in lines if (tick := parse_line(line))]


def block(number: int) -> bytes:
    """The block or page of a number, as guest.c fills it.

    Source: splitmix64, Steele, Lea, Flood 2014.
    """
    words = [_MAGIC, number]
    for at in range(2, BLOCK_BYTES // 8):
        z = (number + at * 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        words.append(z ^ (z >> 31))
    return struct.pack(f"<{len(words)}Q", *words)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFindings:
    """What a disk holds of what had been written.

    Attributes:
        checked: blocks that were looked at.
        missing: numbers of blocks that had been written and are not there, older ones in their
            place among them.
        damaged: places whose content is no block as the guest writes it.
    """

    checked: int
    missing: tuple[int, ...]
    damaged: tuple[int, ...]


def check_disk(path: Path, written: int) -> DiskFindings:
    """See whether a disk holds every block up to a number; later ones may be there already.

    Args:
        path: of a raw image.
        written: the largest number that the guest has said is on the disk.
    """
    count = path.stat().st_size // BLOCK_BYTES
    missing, damaged = [], []
    numbers = range(max(1, written - count + 1), written + 1)
    with path.open("rb") as disk:
        for expected in numbers:
            place = expected % count
            # A block that is being written while it is read is whole a moment later.
            for _ in range(3):
                disk.seek(place * BLOCK_BYTES)
                content = disk.read(BLOCK_BYTES)
                found = struct.unpack_from("<2Q", content)[1]
                is_whole = content == block(found)
                if is_whole:
                    break
            if not is_whole and any(content):
                damaged.append(place)
            elif not is_whole or found < expected or found % count != place:
                missing.append(expected)
    return DiskFindings(checked=len(numbers), missing=tuple(missing), damaged=tuple(damaged))


def gaps(times_s: Iterable[float]) -> float:
    """The longest time between two that follow each other; 0 where there are fewer than two."""
    found = list(times_s)
    return max((b - a for a, b in itertools.pairwise(found)), default=0.0)
