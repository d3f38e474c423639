"""The prctl(2) calls that keep orphans within reach and programs without further rights."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def become_subreaper() -> None:
    """Adopt every orphan below this process, so that it can be found and ended."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def renounce_new_privileges() -> None:
    """Let no program that this process executes gain rights, as by a set-user-id bit."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(parent_pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Get a signal when the parent ends; exit at once where it has ended already.

    The kernel forgets this at a change of user, so call it after one.

    Args:
        parent_pid: the process that is expected to be the parent.
        number: the signal to get.
    """
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent_pid:
        os._exit(1)
