"""Giving up capabilities(7) for good.

A process that becomes another user loses what it may do, but keeps what programs that it executes
could get back: the inheritable and the ambient set, and the bound of what a file can grant.
"""

from __future__ import annotations

import ctypes
import os
import struct

_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_VERSION_3 = 0x20080522
# Two sets of effective, permitted and inheritable: the lower and the upper 32 capabilities.
_SETS = struct.Struct("=6I")
_CAPABILITIES_MAX = 64


def renounce_inheritable() -> None:
    """Empty the inheritable, ambient and bounding sets; what this process may do itself stays.

    The bounding set stays as it is where this process may not change it, as in a container that
    grants little; such a process has nothing to hand on either.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(_CAPABILITIES_MAX):
        if libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break  # EINVAL past the last one that this kernel knows; EPERM without the right
    _check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0))
    data = ctypes.create_string_buffer(_SETS.size)
    _check(libc.capget(header, data))
    effective, permitted, low, effective_high, permitted_high, high = _SETS.unpack(data.raw)
    if low == high == 0:
        return  # as usual; where system calls are filtered, the next one may be forbidden
    data.raw = _SETS.pack(effective, permitted, 0, effective_high, permitted_high, 0)
    _check(libc.capset(header, data))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
