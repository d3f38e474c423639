"""Files of the state directory that are whole at every moment, and last once they are written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def replace_file(
    file: Path, content: bytes | str, *, mode: int = 0o600, owner: tuple[int, int] | None = None
) -> None:
    """Put a file in the place of the one before; on disk when this returns.

    Args:
        file: its directory is there; ``<file>.new`` beside it is ours.
        content: text is written as UTF-8.
        mode: whatever the process's mask is.
        owner: user and group, -1 for the process's own.

    Raises:
        OSError: it can't be written; the one before is whole.
    """
    data = content.encode() if isinstance(content, str) else content
    draft = file.with_name(file.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()  # of somebody who died
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, mode)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        if owner is not None:
            os.fchown(descriptor, *owner)
        stream.write(data)
        stream.flush()
        os.fsync(descriptor)
    draft.rename(file)
    sync_directory(file.parent)


def remove_file(file: Path) -> None:
    """Remove a file for good; one that is not there is no error.

    Raises:
        OSError: it can't be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        file.unlink()
        sync_directory(file.parent)


def sync_directory(directory: Path) -> None:
    """Make new and changed names in a directory last.

    Raises:
        OSError: the disk failed.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
