"""Which files operations may touch: those in the directories for guests' files, and no others.

The service may read and write more than the operators whom it serves, so a path is theirs to choose
only within these. Links are followed before the decision.
"""

from __future__ import annotations

from pathlib import Path

from services.vm.operations.errors import PlaceRefusedError


def confine(path: str, roots: tuple[str, ...]) -> Path:
    """The real path of a file that may or may not exist.

    Args:
        path: absolute.
        roots: directories, as configured.

    Raises:
        PlaceRefusedError: it is not absolute, or leads outside all of them.
    """
    given = Path(path)
    if not given.is_absolute() or "\0" in path or any(ord(letter) < 32 for letter in path):
        raise PlaceRefusedError(f"{path!r:.200} must be an absolute path of printable characters")
    real = Path(given.parent.resolve(), given.name).resolve()
    if any(real.is_relative_to(Path(root).resolve()) for root in roots) and given.name:
        return real
    raise PlaceRefusedError(
        f"{path} is outside the directories for guests' files: {', '.join(roots)}"
    )
