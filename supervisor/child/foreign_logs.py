"""What others log, services by structlog and libraries by ``logging``, goes where we log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from supervisor.child import logs


def adopt(sink: logs.Sink, least: int, fields: Mapping[str, object]) -> None:
    """Set up the standard library's loggers and, where it is imported, structlog.

    Args:
        sink: takes the lines.
        least: number of the least severe level that is written.
        fields: of each event.
    """
    _bridge(max(least, logging.WARNING))
    if "structlog" in sys.modules:
        _configure_structlog(sink, least, fields)


def _configure_structlog(sink: logs.Sink, least: int, fields: Mapping[str, object]) -> None:
    import structlog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _add_correlation,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=logs.dump),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=lambda *_args: sink,
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**fields)


def _bridge(level: int) -> None:
    root = logging.getLogger()
    if not any(isinstance(handler, _Bridge) for handler in root.handlers):
        root.handlers[:] = [_Bridge()]
    if root.level != level:
        root.setLevel(level)


class _Bridge(logging.Handler):
    """Takes records of the standard library's loggers."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        logs.say(record.levelno, record.getMessage(), {"logger": record.name}, error)


def _add_correlation(_logger: object, _method: str, event: Any) -> Any:  # Any: structlog's types
    if value := logs.correlation_id.get():
        event["correlation"] = value
    return event
