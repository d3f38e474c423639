"""How a process of the tree says why it ends."""

from __future__ import annotations

from supervisor.child import logs
from supervisor.child.service import CriticalError
from supervisor.core.reason import EXIT_CRASHED, EXIT_CRITICAL
from supervisor.posix.board import Board, LastWords
from supervisor.runtime.launch import Launch


def report_failure(launch: Launch, board: Board, error: BaseException) -> int:
    """Log an error, leave it as last words, and return the exit code that it means."""
    is_critical = isinstance(error, CriticalError)
    code = getattr(error, "code", type(error).__name__)
    expected = getattr(error, "expected", False)
    logs.Logger().error(
        "process_failed", code=str(code), reason=str(error), exc_info=None if expected else error
    )
    detail = str(error) or type(error).__name__
    board.leave(launch.slot, LastWords(code=str(code), detail=detail))
    return EXIT_CRITICAL if is_critical else EXIT_CRASHED
