"""Follow log files as they grow, across rotation and over components that appear later."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from services.ctl.errors import denied
from services.ctl.logentry import Entry
from services.ctl.logfiles import Source, parse

# What one turn reads of one file; the rest is read in the next, so that no file starves another.
_TURN_BYTES = 1 << 20


class Follower:
    """Reads what is appended to logs; ``turn`` never waits.

    A file that was there at the first turn is followed from its end, one that appears later from
    its beginning.
    """

    def __init__(self) -> None:
        self._tails: dict[Path, _Tail] = {}
        self._is_first_turn = True

    def turn(self, logs: Iterable[Source]) -> list[Entry]:
        """Entries that were added since the last turn, by time.

        Args:
            logs: what to follow; looked up anew for each turn, so that new files are found.

        Raises:
            DeniedError: a file may not be read by this user.
        """
        found: list[Entry] = []
        for source in logs:
            tail = self._tails.get(source.current)
            if tail is None:
                tail = self._tails[source.current] = _Tail(source, at_end=self._is_first_turn)
            found += tail.turn()
        self._is_first_turn = False
        found.sort(key=lambda entry: entry.time_s)
        return found

    def close(self) -> None:
        """Close the files."""
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()


class _Tail:
    """The growing end of one log; knows its file by inode, whatever its name is by now."""

    def __init__(self, source: Source, *, at_end: bool) -> None:
        self._source = source
        self._stream: BinaryIO | None = None
        self._partial = b""
        self._last_time_s = 0.0
        self._open(source.current, at_end=at_end)

    def turn(self) -> list[Entry]:
        lines = self._read()
        if self._is_rotated():
            lines += self._drain()  # written between our reading and the renaming
            for file in self._newer_files():
                self._open(file, at_end=False)
                lines += self._drain()
        elif self._is_truncated():
            self._open(self._source.current, at_end=False)
            lines += self._read()
        return [self._entry(data) for data in lines]

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _open(self, file: Path, *, at_end: bool) -> None:
        self.close()
        self._partial = b""
        try:
            self._stream = file.open("rb")
        except FileNotFoundError:
            return
        except PermissionError:
            raise denied(file) from None
        if at_end:
            self._stream.seek(0, os.SEEK_END)

    def _read(self) -> list[bytes]:
        if self._stream is None:
            return []
        data = self._partial + self._stream.read(_TURN_BYTES)
        *whole, self._partial = data.split(b"\n")
        if len(self._partial) >= _TURN_BYTES:
            whole, self._partial = [*whole, self._partial], b""
        return whole

    def _drain(self) -> list[bytes]:
        """Read a file to its end; a rotated one is bounded by the size at which it was rotated."""
        lines: list[bytes] = []
        while more := self._read():
            lines += more
        return lines

    def _entry(self, data: bytes) -> Entry:
        """A line without a time is shown at the time of the one before it."""
        entry = parse(self._source, data.decode("utf-8", "replace").rstrip("\r"))
        if entry.time_s:
            self._last_time_s = entry.time_s
            return entry
        return Entry(self._last_time_s, entry.component, entry.level, entry.fields, entry.raw)

    def _inode(self) -> int:
        return os.fstat(self._stream.fileno()).st_ino if self._stream is not None else -1

    def _is_rotated(self) -> bool:
        try:
            return self._source.current.stat().st_ino != self._inode()
        except FileNotFoundError:  # between renaming and creation
            return False

    def _is_truncated(self) -> bool:
        if self._stream is None:
            return False
        return os.fstat(self._stream.fileno()).st_size < self._stream.tell()

    def _newer_files(self) -> list[Path]:
        """The files that were begun after ours, oldest first; all of them when ours is gone."""
        newer: list[Path] = []
        for file in self._source.files():
            try:
                if file.stat().st_ino == self._inode():
                    break
            except FileNotFoundError:
                continue
            newer.append(file)
        return newer[::-1]
