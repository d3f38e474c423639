"""Files that are replaced as a whole."""

from __future__ import annotations

from pathlib import Path

from services.files import replace_file
from services.network.serving.errors import ServingStateError


def write(file: Path, text: str, *, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Replace a file as a whole, durably.

    Raises:
        ServingStateError: it can't be written; the old one is whole.
    """
    try:
        replace_file(file, text, mode=mode, owner=owner)
    except OSError as exc:
        raise ServingStateError(f"can't write {file}: {exc.strerror}", file=str(file)) from exc
