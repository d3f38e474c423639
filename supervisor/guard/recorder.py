"""Privileged calls are noted on disk before they take effect, without the loop waiting for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from protocol.dataclass import dataclass
from protocol.errors import NovacronError
from supervisor.guard.background import Attach, Background
from supervisor.guard.spool import Note, SpoolError
from supervisor.guard.spool_writer import SpoolWriter

# A disk that takes longer is not there; the call is refused, and may be tried again.
DEADLINE_S = 2.0
# Calls that wait for the disk at the same time.
PENDING_MAX = 256

Done = Callable[[NovacronError | None], None]


@dataclass(slots=True)
class _Item:
    note: Note
    done: Done | None
    deadline_s: float
    error: NovacronError | None = None


class Recorder:
    """The spool of one process.

    Args:
        directory: of the tree's spool.
        process: path of the process.
        attach: see Background.
    """

    def __init__(self, directory: Path, process: str, attach: Attach) -> None:
        self._writer = SpoolWriter(directory, process)
        self._finished: deque[_Item] = deque()
        self._pending: dict[int, _Item] = {}
        self._background: Background[_Item] = Background(self._write, attach, self._settle)

    def record(self, note: Note, done: Done) -> None:
        """Note something durably; ``done`` gets None, or why it is not certainly noted."""
        if len(self._pending) >= PENDING_MAX:
            done(SpoolError("too many privileged calls wait for the disk"))
            return
        item = _Item(note, done, time.monotonic() + DEADLINE_S)
        self._pending[id(item)] = item
        self._background.put(item)

    def note(self, note: Note) -> None:
        """Note something soon, without waiting until it is durable."""
        if len(self._pending) < PENDING_MAX:
            self._background.put(_Item(note, None, 0.0))

    def due_s(self) -> float | None:
        """When ``turn`` is needed next, if the disk does not answer."""
        return min((item.deadline_s for item in self._pending.values()), default=None)

    def turn(self, now_s: float) -> None:
        """Take results, and give up what takes too long."""
        self._background.turn()
        for key, item in list(self._pending.items()):
            if item.deadline_s <= now_s and self._pending.pop(key, None) is not None:
                assert item.done is not None
                item.done(SpoolError(f"the disk took more than {DEADLINE_S:g} s"))

    def close(self) -> None:
        """Let what has been handed over reach the disk, for a moment."""
        self._background.close()

    def _write(self, items: list[_Item]) -> None:
        """In the thread: one write and one wait for all that has gathered."""
        try:
            is_durable = any(item.done is not None for item in items)
            self._writer.write([item.note for item in items], durably=is_durable)
        except NovacronError as exc:
            for item in items:
                item.error = exc
        self._finished.extend(items)

    def _settle(self) -> None:
        while self._finished:
            item = self._finished.popleft()
            if self._pending.pop(id(item), None) is not None:
                assert item.done is not None
                item.done(item.error)
