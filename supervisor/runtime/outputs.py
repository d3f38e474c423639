"""The files that commands write their output to, kept below a size while they are written.

A command's standard output and standard error are a file that it appends to by itself. Between
the program and the disk there is nothing of ours that could be slow, stopped or dead, as the
reader of a pipe could; all that is left to do is to keep the file small. A thread does this,
which sleeps until a file is written to::

    x.log grows past the limit -> its content is copied to x.log.1, and removed from x.log

On ext4 and XFS the beginning of a file can be taken out while a program appends to it, and no
byte is lost: x.log.1 and x.log, one after the other, are what was written. Elsewhere, and where a
program floods the file, it is truncated: what was written in the moment between is gone.

See docs/adr/0011 for the measurements.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import threading
import time
from collections import deque
from pathlib import Path

from protocol.dataclass import dataclass, field
from supervisor.child import logs
from supervisor.posix import heads
from supervisor.posix.inotify import Inotify

# Between two looks at a file that grows. The shortest bounds how far a flood gets beyond the
# limit: at 1 GB/s by 20 MB. The longest bounds what a thousand files cost that all grow slowly.
_LOOK_MIN_S = 0.02
_LOOK_MAX_S = 0.5
# A file that has grown to this many times the limit is a flood, of which only the end is kept.
_FLOOD_FACTOR = 2
# Nothing is moved away while a line is waited for, except at this many times the limit.
_HOLD_FACTOR = 4
_COPY_BYTES = 1 << 20
_END_TIMEOUT_S = 2.0
_REPORT_PERIOD_S = 10.0
# A rotation of this very file is awaited so long before its size is taken.
_LOCK_TIMEOUT_S = 0.5


@dataclass(eq=False, slots=True)
class _File:
    """One file.

    Attributes:
        descriptor: for reading and writing; -1 once the thread has forgotten the file.
        seen_bytes, seen_s: its size at the last look; -1 when there was none of late.
        due_s: when to look at it again.
        number: what inotify calls it while nobody looks; -1 otherwise.
        is_held: somebody reads it.
        is_unwanted: it is to be forgotten.
        lost_bytes: what was dropped and has not been logged.
    """

    path: Path
    descriptor: int
    seen_bytes: int = -1
    seen_s: float = 0.0
    due_s: float = 0.0
    number: int = -1
    is_held: bool = False
    is_unwanted: bool = False
    lost_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Outputs:
    """The outputs of one supervisor's commands.

    Args:
        bytes_max: size at which a file is rotated.
        files: rotated files that are kept beside it.
    """

    def __init__(self, *, bytes_max: int, files: int) -> None:
        self._bytes_max = bytes_max
        self._kept = files
        self._files: dict[Path, _File] = {}
        self._news: deque[_File] = deque()
        self._thread: threading.Thread | None = None
        self._wake = -1
        self._is_ending = False
        self._reported_s = 0.0
        self._log = logs.Logger()

    def watch(self, path: Path) -> None:
        """Keep the file of a command that is about to be started small, from now on.

        Raises:
            OSError: the file can't be opened.
        """
        if path in self._files:
            return
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        file = self._files[path] = _File(path, os.open(path, _FLAGS, 0o640))
        if self._thread is None:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._thread = threading.Thread(target=self._run, name="outputs", daemon=True)
            self._thread.start()
        self._tell(file)

    def forget(self, path: Path) -> None:
        """The command will not come back."""
        if (file := self._files.pop(path, None)) is not None:
            file.is_unwanted = True
            self._tell(file)

    def hold(self, path: Path) -> int:
        """Move nothing of a file until ``release``, since it is read; returns its size."""
        file = self._files[path]
        is_locked = file.lock.acquire(timeout=_LOCK_TIMEOUT_S)
        try:
            file.is_held = True
            return os.fstat(file.descriptor).st_size
        finally:
            if is_locked:
                file.lock.release()

    def release(self, path: Path) -> None:
        """Nobody reads the file any more."""
        if (file := self._files.get(path)) is not None:
            file.is_held = False

    def turn(self, now_s: float) -> None:
        """Log what was dropped; the thread itself must not, since a log has one writer."""
        if now_s - self._reported_s < _REPORT_PERIOD_S:
            return
        self._reported_s = now_s
        for file in self._files.values():
            lost, file.lost_bytes = file.lost_bytes, 0
            if lost:
                self._log.warning("output_cut", file=str(file.path), lost_bytes=lost)

    def close(self) -> None:
        """End the thread, which closes the files."""
        if self._thread is None:
            return
        self._is_ending = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(_END_TIMEOUT_S)
        if not self._thread.is_alive():  # else the disk hangs
            os.close(self._wake)
        self._files.clear()
        self._thread = None

    def _tell(self, file: _File) -> None:
        self._news.append(file)
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        keeper = _Keeper(self._bytes_max, self._kept)
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        poller.register(keeper.inotify.descriptor, select.POLLIN)
        while not self._is_ending:
            poller.poll(keeper.timeout_ms())
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            while self._news:
                keeper.take(self._news.popleft())
            keeper.turn(time.monotonic())
        keeper.close()


class _Keeper:
    """What the thread does: looks at files that grow, sleeps on those that do not."""

    def __init__(self, bytes_max: int, kept: int) -> None:
        self.inotify = Inotify()
        self._bytes_max = bytes_max
        self._kept = kept
        self._growing: set[_File] = set()
        self._resting: dict[int, _File] = {}

    def take(self, file: _File) -> None:
        if not file.is_unwanted:
            self._growing.add(file)
            return
        self._growing.discard(file)
        if self._resting.pop(file.number, None) is not None:
            self.inotify.disarm(file.number)
        os.close(file.descriptor)

    def timeout_ms(self) -> int | None:
        due_s = min((file.due_s for file in self._growing), default=None)
        return None if due_s is None else max(1, int((due_s - time.monotonic()) * 1000) + 1)

    def turn(self, now_s: float) -> None:
        for number in self.inotify.take():
            if (file := self._resting.pop(number, None)) is not None:
                file.number = file.seen_bytes = -1
                file.due_s = now_s
                self._growing.add(file)
        for file in [file for file in self._growing if file.due_s <= now_s]:
            try:
                self._look(file, now_s)
            except OSError:  # of a disk that fails: it may be better later
                file.due_s = now_s + _LOOK_MAX_S

    def close(self) -> None:
        for file in (*self._growing, *self._resting.values()):
            os.close(file.descriptor)
        self.inotify.close()

    def _look(self, file: _File, now_s: float) -> None:
        size = os.fstat(file.descriptor).st_size
        if size > self._bytes_max * (_HOLD_FACTOR if file.is_held else 1):
            self._rotate(file, size)
            size, file.seen_bytes = os.fstat(file.descriptor).st_size, -1
        grown, elapsed_s = size - file.seen_bytes, now_s - file.seen_s
        is_first = file.seen_bytes < 0
        file.seen_bytes, file.seen_s = size, now_s
        if is_first:
            file.due_s = now_s + _LOOK_MIN_S
        elif grown == 0:
            self._rest(file, now_s)
        else:
            left_s = (self._bytes_max - size) * elapsed_s / grown
            file.due_s = now_s + min(_LOOK_MAX_S, max(_LOOK_MIN_S, left_s / 4))

    def _rest(self, file: _File, now_s: float) -> None:
        """Look no more until the next write."""
        file.due_s = now_s + _LOOK_MAX_S
        try:
            file.number = self.inotify.arm(file.descriptor)
        except OSError:  # the user has too many watches
            return
        self._resting[file.number] = file
        self._growing.discard(file)
        if os.fstat(file.descriptor).st_size != file.seen_bytes:  # written to in between
            del self._resting[file.number]
            self._growing.add(file)
            file.due_s = now_s

    def _rotate(self, file: _File, size: int) -> None:
        with file.lock:
            try:
                file.lost_bytes += rotate(
                    file.path, file.descriptor, bytes_max=self._bytes_max, kept=self._kept
                )
            except OSError:  # such as a full disk, when it is all the more time to make room
                os.ftruncate(file.descriptor, 0)
                file.lost_bytes += size


_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


def rotate(path: Path, descriptor: int, *, bytes_max: int, kept: int) -> int:
    """Move the content of a file that others append to into ``<path>.1``.

    Args:
        path: the file; ``<path>.1`` becomes ``<path>.2``, and on.
        descriptor: of the file, open for reading and writing.
        bytes_max: what is kept of a file that is a flood.
        kept: how many rotated files stay.

    Returns:
        How many bytes were dropped.

    Raises:
        OSError: nothing was removed from the file.
    """
    size = os.fstat(descriptor).st_size
    block = heads.block_bytes(descriptor)
    is_flood = size > bytes_max * _FLOOD_FACTOR
    start = size - bytes_max if is_flood else 0
    whole = (size - 1) // block * block
    draft = path.with_name(f"{path.name}.new")
    copy = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        _copy(descriptor, copy, start, size if is_flood else whole)
        if kept:
            _shift(path, draft, kept)
        else:
            draft.unlink()
        if is_flood or not whole or not heads.remove_head(descriptor, whole):
            if not is_flood:
                _copy(descriptor, copy, whole, None)
            os.ftruncate(descriptor, 0)
    finally:
        os.close(copy)
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
    return start


def _copy(source: int, target: int, start: int, end: int | None) -> None:
    """Append a part of one file to another; None for all that there is."""
    while end is None or start < end:
        count = _COPY_BYTES if end is None else min(_COPY_BYTES, end - start)
        copied = os.sendfile(target, source, start, count)
        if copied == 0:
            return
        start += copied


def _shift(path: Path, newest: Path, kept: int) -> None:
    files = [path.with_name(f"{path.name}.{number}") for number in range(1, kept + 1)]
    for source, target in reversed(list(itertools.pairwise([newest, *files]))):
        with contextlib.suppress(FileNotFoundError):
            source.replace(target)
