"""inotify(7), as far as it is needed to sleep until a file grows."""

from __future__ import annotations

import ctypes
import os
import struct

_IN_MODIFY = 0x2
_IN_ONESHOT = 0x80000000
_EVENT = struct.Struct("iIII")
_READ_BYTES = 4096


class Inotify:
    """Tells once that a file was written to, however often it is.

    Attributes:
        descriptor: becomes readable when ``take`` has something to tell.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = _checked(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def arm(self, descriptor: int) -> int:
        """Tell of the next write to an open file; returns the number that ``take`` calls it by.

        Raises:
            OSError: the user has as many watches as are allowed.
        """
        name = f"/proc/self/fd/{descriptor}".encode()  # whatever the file is called by now
        return _checked(
            self._libc.inotify_add_watch(self.descriptor, name, _IN_MODIFY | _IN_ONESHOT)
        )

    def disarm(self, number: int) -> None:
        """Do not tell of it any more."""
        self._libc.inotify_rm_watch(self.descriptor, number)

    def take(self) -> set[int]:
        """Numbers of the files that were written to since they were armed."""
        found: set[int] = set()
        while True:
            try:
                data = os.read(self.descriptor, _READ_BYTES)
            except BlockingIOError:
                return found
            position = 0
            while position < len(data):
                number, _mask, _cookie, length = _EVENT.unpack_from(data, position)
                position += _EVENT.size + length
                found.add(number)

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
