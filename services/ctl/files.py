"""Files that commands read: documents by name, or from standard input at ``-``."""

from __future__ import annotations

import sys
from pathlib import Path

from services.ctl.errors import UsageError, denied


def read_text(place: str, bytes_max: int) -> str:
    """The text of a file, or of standard input at ``-``.

    Raises:
        UsageError: it is not there, too large, or no UTF-8.
        DeniedError: this user may not read it.
    """
    try:
        if place == "-":
            data = sys.stdin.buffer.read(bytes_max + 1)
        else:
            with Path(place).open("rb") as stream:
                data = stream.read(bytes_max + 1)
    except PermissionError as exc:
        raise denied(Path(place)) from exc
    except OSError as exc:
        raise UsageError(f"{place}: {exc.strerror}") from exc
    if len(data) > bytes_max:
        raise UsageError(f"{place}: larger than {bytes_max} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise UsageError(f"{place}: not UTF-8 ({exc.reason} at byte {exc.start})") from exc
