"""Logging of one process: JSON lines to its own rotated file and to the standard error stream.

Each process has a file of its own, so that no process waits for another to log and rotation has
one writer. The standard error stream is a pipe that never blocks (supervisor.runtime): a line
that finds it full is dropped there and counted, and still is in the file. Where the file can't
be written, the standard error stream alone goes on, and says so once.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import logging.handlers
import os
import sys
from pathlib import Path
from typing import Any

import structlog

from protocol import names

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
    sink = _Sink(_file_handler(path, log_dir, bytes_max, files))
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
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(_Bridge())
    root.setLevel(max(number, logging.WARNING))
    if sink.problem:
        structlog.get_logger().warning("log_file_unavailable", reason=sink.problem)


def log_file(log_dir: Path, path: str, suffix: str = ".jsonl") -> Path:
    """The log file of a process."""
    return log_dir / f"{names.file_stem(path)}{suffix}"


class _Sink:
    """Takes finished lines; structlog calls the method that is named like the level."""

    def __init__(self, opened: logging.handlers.RotatingFileHandler | str) -> None:
        self._file = None if isinstance(opened, str) else opened
        self.problem = opened if isinstance(opened, str) else ""
        self.dropped = 0

    def write(self, line: str) -> None:
        if self._file is not None:
            try:
                self._file.emit(logging.LogRecord("", 0, "", 0, line, None, None))
            except OSError as exc:
                self._file, self.problem = None, f"{exc.strerror}; logging to stderr only"
                self.write(_dump({"event": "log_file_unavailable", "reason": self.problem}))
        try:
            os.write(sys.stderr.fileno(), line.encode() + b"\n")
        except (OSError, ValueError):
            self.dropped += 1

    msg = debug = info = warning = error = critical = exception = fatal = log = write


class _RaisingFileHandler(logging.handlers.RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - stdlib's name
        raise  # noqa: PLE0704 - called from an except block; the sink decides


def _file_handler(
    path: str, log_dir: str, bytes_max: int, files: int
) -> logging.handlers.RotatingFileHandler | str:
    """Open the file, or say why that can't be done."""
    if not log_dir:
        return ""
    target = log_file(Path(log_dir), path)
    try:
        target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        handler = _RaisingFileHandler(
            target, maxBytes=bytes_max, backupCount=files, encoding="utf-8"
        )
    except OSError as exc:
        return f"{target}: {exc.strerror}; logging to stderr only"
    with contextlib.suppress(OSError):
        target.chmod(0o640)
    return handler


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
