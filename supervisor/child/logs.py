"""Logging of one process: JSON lines to its own rotated file and to the standard error stream.

Each process has a file of its own, so that no process waits for another to log and rotation has
one writer. The standard error stream is a pipe or terminal that never blocks: a line that finds it
full is dropped there and counted, and still is in the file. A terminal gets lines for people
(supervisor.child.console). Where the file can't be written, the standard error stream alone goes
on, and says so once.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from protocol import names
from supervisor.child import console

_STDERR = 2
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_NAMES = {number: name for name, number in LEVELS.items()}
correlation_id: contextvars.ContextVar[str] = contextvars.ContextVar("correlation", default="")


class Logger:
    """Says what happens in this process, as events with fields.

    It is to supervisors what structlog is to services, and writes the same lines. structlog takes
    40 ms to import and four megabytes, which is most of what a tree of programs would need.

    Args:
        fields: of each event.
    """

    __slots__ = ("_fields",)

    def __init__(self, **fields: object) -> None:
        self._fields = fields

    def info(self, event: str, **fields: object) -> None:
        """Say what is as it should be."""
        say(LEVELS["info"], event, {**self._fields, **fields})

    def warning(self, event: str, **fields: object) -> None:
        """Say what somebody should look at."""
        say(LEVELS["warning"], event, {**self._fields, **fields})

    def error(self, event: str, *, exc_info: BaseException | None = None, **fields: object) -> None:
        """Say what went wrong.

        Args:
            event: its name.
            exc_info: an exception whose traceback is shown.
            fields: of the event.
        """
        say(LEVELS["error"], event, {**self._fields, **fields}, exc_info)


def say(
    level: int, event: str, fields: Mapping[str, object], error: BaseException | None = None
) -> None:
    """Write a line of the log, if it is severe enough.

    Args:
        level: its number; what lies between two levels counts as the lower one.
        event: what happened.
        fields: of the event.
        error: an exception whose traceback is shown.
    """
    if level < _process.least:
        return
    entry = {**fields, "event": event}
    for name, value in _process.fields.items():
        entry.setdefault(name, value)
    if value := correlation_id.get():
        entry["correlation"] = value
    entry["level"] = _NAMES.get(level) or _name_of(level)
    entry["timestamp"] = _timestamp(time.time())
    if error is not None:
        import traceback

        entry["exception"] = "".join(traceback.format_exception(error)).rstrip()
    _process.sink.write(dump(entry))


def configure(
    path: str, *, log_dir: str, level: str, bytes_max: int = 10 << 20, files: int = 5
) -> None:
    """Set up the log of this process, and what others here log by.

    Args:
        path: the process's path; names the file and is bound as ``component``.
        log_dir: directory of the files; "" for none.
        level: least severe level that is written.
        bytes_max: size at which the file is rotated.
        files: rotated files to keep.
    """
    _process.sink = sink = Sink(_open_file(path, log_dir, bytes_max, files))
    _process.least = LEVELS[level]
    _process.fields = {"component": path, "pid": os.getpid()}
    adopt_foreign()
    if sink.problem:
        Logger().warning("log_file_unavailable", reason=sink.problem)


def adopt_foreign() -> None:
    """Have structlog and the standard library's loggers, where imported, log as we do."""
    if "logging" in sys.modules:  # which structlog imports
        from supervisor.child import foreign_logs

        foreign_logs.adopt(_process.sink, _process.least, _process.fields)


def log_file(log_dir: Path, path: str, suffix: str = ".jsonl") -> Path:
    """The log file of a process."""
    return log_dir / f"{names.file_stem(path)}{suffix}"


def open_output(target: Path) -> int:
    """Open the file for a program's output; supervisor.runtime.outputs keeps it small.

    Raises:
        OSError: it can't be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(target, flags, 0o640)


class Sink:
    """Takes finished lines; structlog calls the method that is named like the level.

    Args:
        opened: the file; a sentence where it can't be opened, "" where there is to be none.
    """

    def __init__(self, opened: RotatedFile | str) -> None:
        self._file = None if isinstance(opened, str) else opened
        self.problem = opened if isinstance(opened, str) else ""
        self.dropped = 0
        self._is_for_people = console.wants_lines(_STDERR)
        self._has_colours = console.has_colours()

    def write(self, line: str) -> None:
        """Write a line; never waits."""
        data = line.encode() + b"\n"
        if self._file is not None:
            try:
                self._file.write(data)
            except OSError as exc:
                self._file, self.problem = None, f"{exc.strerror}; logging to stderr only"
                self.write(dump({"event": "log_file_unavailable", "reason": self.problem}))
        if self._is_for_people:
            data = console.render(line, colours=self._has_colours).encode() + b"\n"
        try:
            os.write(_STDERR, data)
        except OSError:
            self.dropped += 1

    msg = debug = info = warning = error = critical = exception = fatal = log = write


class RotatedFile:
    """A file that makes room for itself: ``x`` becomes ``x.1``, ``x.1`` becomes ``x.2``, ….

    The standard library's handler does the same and costs every process of the tree half a
    megabyte of memory that it would otherwise share with the others.

    Args:
        path: the current file; created for the node's group to read.
        bytes_max: a line that would make it longer goes to the next file.
        files: how many older ones are kept.
    """

    def __init__(self, path: Path, *, bytes_max: int, files: int) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._files = files
        self._open()

    def write(self, data: bytes) -> None:
        """Append one line.

        Raises:
            OSError: the file can't be written or rotated.
        """
        if self._size and self._size + len(data) > self._bytes_max:
            os.close(self._descriptor)
            self._rotate()
            self._open()
        os.write(self._descriptor, data)
        self._size += len(data)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, 0o640)
        self._size = os.fstat(self._descriptor).st_size

    def _rotate(self) -> None:
        names = [self._path]
        names += [Path(f"{self._path}.{number}") for number in range(1, self._files + 1)]
        for source, target in reversed(list(itertools.pairwise(names))):
            with contextlib.suppress(FileNotFoundError):
                source.replace(target)


def _open_file(path: str, log_dir: str, bytes_max: int, files: int) -> RotatedFile | str:
    """Open the file, or say why that can't be done."""
    if not log_dir:
        return ""
    target = log_file(Path(log_dir), path)
    try:
        target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        return RotatedFile(target, bytes_max=bytes_max, files=files)
    except OSError as exc:
        return f"{target}: {exc.strerror}; logging to stderr only"


_encode = json.JSONEncoder(default=repr, ensure_ascii=False).encode


def dump(event: object, **_options: object) -> str:
    """A line of the log."""
    return _encode(event)


class _Process:
    """How this process logs; one for all of it, as the standard error stream is."""

    def __init__(self) -> None:
        self.sink = Sink("")
        self.least = LEVELS["info"]
        self.fields: dict[str, object] = {}


def _name_of(level: int) -> str:
    return next((name for least, name in reversed(_NAMES.items()) if least <= level), "debug")


def _timestamp(at_s: float) -> str:
    second = int(at_s)
    return f"{_second(second)}.{int((at_s - second) * 1e6):06d}Z"


@functools.lru_cache(maxsize=1)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


_process = _Process()
