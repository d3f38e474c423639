"""The node's log files as one stream, in order of time and within bounded memory.

A process writes JSON lines to ``<path with dots>.jsonl``, rotated to ``.jsonl.1`` and on; a
command's raw output is in ``<path>.log``. Each file is in order of time by itself, so that merging
needs one entry per file: forwards from the oldest, or backwards from the newest until enough are
found. A raw line without a time belongs to the entry before it, as in PostgreSQL's statements.
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from protocol import names
from services.ctl.errors import denied
from services.ctl.logentry import ENTRY_LINES_MAX, Entry, parse_json, parse_raw

# Read backwards in blocks of this size; a line that is longer is cut there.
_BLOCK_BYTES = 1 << 18
_SUFFIXES = (".jsonl", ".log")

Parse = Callable[[str, str], Entry]


@dataclass(frozen=True, slots=True)
class Source:
    """The log of one process: its current file and those rotated away, newest first."""

    component: str
    current: Path

    @property
    def is_json(self) -> bool:
        """Whether the lines are JSON records, and not a program's raw output."""
        return self.current.suffix == ".jsonl"

    def files(self) -> list[Path]:
        """The files that exist, newest first."""
        rotated = {
            int(tail): file
            for file in self.current.parent.glob(f"{self.current.name}.*")
            if (tail := file.name.removeprefix(f"{self.current.name}.")).isdigit()
        }
        present = [self.current] if self.current.exists() else []
        return present + [rotated[number] for number in sorted(rotated)]


def sources(log_dir: Path) -> list[Source]:
    """Every log of a directory, by component.

    Raises:
        DeniedError: the directory may not be read by this user.
    """
    found: dict[Path, Source] = {}
    try:
        entries = sorted(log_dir.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError:
        raise denied(log_dir) from None
    for entry in entries:
        base = entry.with_suffix("") if entry.suffix[1:].isdigit() else entry
        if base.suffix in _SUFFIXES:
            found[base] = Source(_component_of(base), base)
    return list(found.values())


def _component_of(file: Path) -> str:
    return names.path_of_key(Path(f"{file.stem}.key"))


def newest(logs: Iterable[Source], count: int, keep: Callable[[Entry], bool]) -> list[Entry]:
    """The last ``count`` entries that ``keep`` accepts, oldest first."""
    streams = [_backwards(source) for source in logs]
    merged = heapq.merge(*streams, key=_order, reverse=True)
    found = list(itertools.islice(filter(keep, merged), count))
    found.reverse()
    return found


def since(logs: Iterable[Source], time_s: float, keep: Callable[[Entry], bool]) -> Iterator[Entry]:
    """Every entry from ``time_s`` on that ``keep`` accepts, oldest first."""
    streams = [_forwards(source, time_s) for source in logs]
    for entry in heapq.merge(*streams, key=_order):
        if entry.time_s >= time_s and keep(entry):
            yield entry


def parse(source: Source, text: str) -> Entry:
    """One line of a source; an entry without a time has ``time_s`` 0."""
    return (
        parse_json(text, source.component) if source.is_json else parse_raw(text, source.component)
    )


def _order(entry: Entry) -> float:
    return entry.time_s


def _forwards(source: Source, time_s: float) -> Iterator[Entry]:
    """Entries of all files, oldest first; files that ended before ``time_s`` are not read."""
    pending: Entry | None = None
    for file in reversed(source.files()):
        try:
            if file.stat().st_mtime < time_s:
                continue
            fallback_s = _fallback_s(source, file)
            with file.open("rb") as stream:
                while data := stream.readline(_BLOCK_BYTES):
                    entry = parse(source, _text(data)).at(fallback_s)
                    if pending is not None and not entry.time_s:
                        pending = pending.with_more(entry)
                        continue
                    if pending is not None:
                        yield pending
                    pending = entry
        except FileNotFoundError:  # rotated away under our eyes
            continue
        except PermissionError:
            raise denied(file) from None
    if pending is not None:
        yield pending


def _backwards(source: Source) -> Iterator[Entry]:
    """Entries of all files, newest first; a continuation is joined to the line it belongs to."""
    # Full, it drops what is furthest from the line that they belong to.
    more: deque[Entry] = deque(maxlen=ENTRY_LINES_MAX)
    for file in source.files():
        try:
            fallback_s = _fallback_s(source, file)
            for text in _lines_backwards(file):
                entry = parse(source, text).at(fallback_s)
                if not entry.time_s:
                    more.append(entry)
                    continue
                yield entry.with_more(*reversed(more))
                more.clear()
        except FileNotFoundError:
            continue
        except PermissionError:
            raise denied(file) from None
    if more:
        first = more.pop()
        yield first.with_more(*reversed(more))


def _fallback_s(source: Source, file: Path) -> float:
    """The time of lines that have none: that of the file, where none of its lines has one.

    0 elsewhere: such a line then belongs to the one before it.
    """
    if source.is_json:
        return 0.0
    with file.open("rb") as stream:
        first = stream.read(_BLOCK_BYTES).splitlines()
    if any(parse(source, _text(data)).time_s for data in first):
        return 0.0
    return file.stat().st_mtime


def _lines_backwards(file: Path) -> Iterator[str]:
    """The lines of a file from its end; one longer than a block comes in pieces."""
    with file.open("rb") as stream:
        position = stream.seek(0, os.SEEK_END)
        tail = b""
        while position > 0:
            step = min(_BLOCK_BYTES, position)
            position -= step
            stream.seek(position)
            head, *whole = (stream.read(step) + tail).split(b"\n")
            yield from (_text(data) for data in reversed(whole) if data)
            tail = head
            if len(tail) >= _BLOCK_BYTES:
                yield _text(tail)
                tail = b""
        if tail:
            yield _text(tail)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").rstrip("\r\n")
