"""Removing the beginning of a file while others append to it."""

from __future__ import annotations

import ctypes
import os

_FALLOC_FL_COLLAPSE_RANGE = 0x08


def remove_head(descriptor: int, size_bytes: int) -> bool:
    """Remove the first bytes of a file, which loses nothing of what is appended meanwhile.

    Args:
        descriptor: of a regular file, open for writing.
        size_bytes: a multiple of the file system's block size, and less than the file has.

    Returns:
        False where the file system can't do it; ext4 and XFS can.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(libc.fallocate(descriptor, _FALLOC_FL_COLLAPSE_RANGE, 0, size_bytes) == 0)


def block_bytes(descriptor: int) -> int:
    """The block size of a file's file system."""
    return os.fstatvfs(descriptor).f_bsize
