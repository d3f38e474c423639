"""A pytest fixture that fails a test which leaves a process behind.

    pytest_plugins = ["supervisor.testing.pytest_plugin"]      # in conftest.py, or -p on the line

    @pytest.mark.usefixtures("no_process_left")
    def test_a_stop_stops_everything() -> None:
        ...

Ask for it by the mark, not as an argument: it is then set up before the other fixtures of the test
and looks when all of them have cleaned up. Whatever the test started counts, at any depth, in
whatever session, also where its parents have ended: for that long the test's process is the
sub-reaper that adopts them. What is left is ended, so that only one test fails for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.posix.processes import children_of, descendants_of, end_strangers

# Processes that were told to end may take so long.
GRACE_S = 1.0
_PAUSE_S = 0.01
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


class ProcessLeftError(AssertionError):
    """Processes are left that were not there before.

    Attributes:
        lines: one for each: pid and command line.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("left behind:\n" + "\n".join(lines))
        self.lines = lines


@pytest.fixture
def no_process_left() -> Iterator[None]:
    """Fail the test if a process that it started is still there after it."""
    try:
        with leaving_no_process():
            yield
    except ProcessLeftError as exc:
        pytest.fail(f"the test left processes behind:\n{os.linesep.join(exc.lines)}", pytrace=False)


@contextlib.contextmanager
def leaving_no_process(grace_s: float = GRACE_S) -> Iterator[None]:
    """Check that what is started inside has ended afterwards, without pytest.

    Args:
        grace_s: how long to wait for it.

    Raises:
        ProcessLeftError: something has not; it was killed then.
    """
    was_subreaper = _set_subreaper(is_one=True)
    before = _running()
    try:
        yield
    finally:
        left = _await_end(before, grace_s)
        end_strangers({pid for pid, _ in before} & set(children_of(os.getpid())))
        _set_subreaper(is_one=was_subreaper)
    if left:
        raise ProcessLeftError(left)


def _await_end(before: set[tuple[int, int]], grace_s: float) -> list[str]:
    """What still runs when the time is over."""
    deadline_s = time.monotonic() + grace_s
    while True:
        left = sorted(_running() - before)
        if not left or time.monotonic() >= deadline_s:
            return [_describe(pid) for pid, _ in left]
        time.sleep(_PAUSE_S)


def _running() -> set[tuple[int, int]]:
    """The processes below this one, each with its start time, as a pid alone may be reused.

    One that has ended and was not waited for does not run any more.
    """
    found = set()
    for pid in descendants_of(os.getpid()):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX":
                found.add((pid, int(fields[19])))
    return found


def _describe(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    return f"  {pid} {b' '.join(words).decode(errors='replace').strip()}"


def _set_subreaper(*, is_one: bool) -> bool:
    """Adopt orphans, or no longer; returns what was before."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = ctypes.c_int()
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, int(is_one), 0, 0, 0)
    return bool(before.value)
