"""Files that are replaced as a whole."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from services.network.serving.errors import ServingStateError


def write(file: Path, text: str, *, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Replace a file as a whole, durably.

    Raises:
        ServingStateError: it can't be written; the old one is whole.
    """
    draft = file.with_name(file.name + ".new")
    try:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(descriptor, mode)
            if owner is not None:
                os.fchown(descriptor, *owner)
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        draft.rename(file)
        directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as exc:
        raise ServingStateError(f"can't write {file}: {exc.strerror}", file=str(file)) from exc
