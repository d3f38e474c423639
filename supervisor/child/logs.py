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
import itertools
import json
import logging
import os
from pathlib import Path
from typing import Any

import structlog

from protocol import names
from supervisor.child import console

_STDERR = 2
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
correlation_id: contextvars.ContextVar[str] = contextvars.ContextVar("correlation", default="")


def configure(
    path: str, *, log_dir: str, level: str, bytes_max: int = 10 << 20, files: int = 5
) -> None:
    """Set up structlog, and the standard library's loggers through it.

    Args:
        path: the process's path; names the file and is bound as ``component``.
        log_dir: directory of the files; "" for none.
        level: least severe level that is written.
        bytes_max: size at which the file is rotated.
        files: rotated files to keep.
    """
    number = _LEVELS[level]
    sink = _Sink(_open_file(path, log_dir, bytes_max, files))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _add_correlation,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_dump),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_args: sink,
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(component=path, pid=os.getpid())
    bridge_standard_library(max(number, logging.WARNING))
    if sink.problem:
        structlog.get_logger().warning("log_file_unavailable", reason=sink.problem)


def bridge_standard_library(level: int = logging.WARNING) -> None:
    """Send what libraries log through structlog.

    Args:
        level: least severe level that is taken.
    """
    root = logging.getLogger()
    if not any(isinstance(handler, _Bridge) for handler in root.handlers):
        root.handlers[:] = [_Bridge()]
    if root.level != level:
        root.setLevel(level)


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


class _Sink:
    """Takes finished lines; structlog calls the method that is named like the level."""

    def __init__(self, opened: RotatedFile | str) -> None:
        self._file = None if isinstance(opened, str) else opened
        self.problem = opened if isinstance(opened, str) else ""
        self.dropped = 0
        self._is_for_people = console.wants_lines(_STDERR)
        self._has_colours = console.has_colours()

    def write(self, line: str) -> None:
        data = line.encode() + b"\n"
        if self._file is not None:
            try:
                self._file.write(data)
            except OSError as exc:
                self._file, self.problem = None, f"{exc.strerror}; logging to stderr only"
                self.write(_dump({"event": "log_file_unavailable", "reason": self.problem}))
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


class _Bridge(logging.Handler):
    """Hands records of the standard library's loggers to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(logger=record.name)
        log.log(record.levelno, record.getMessage(), exc_info=record.exc_info or None)


def _add_correlation(_logger: object, _method: str, event: Any) -> Any:  # Any: structlog's types
    if value := correlation_id.get():
        event["correlation"] = value
    return event


def _dump(event: object, **_options: object) -> str:
    return json.dumps(event, default=repr, ensure_ascii=False)
