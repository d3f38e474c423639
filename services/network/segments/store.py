"""The wanted segments and the journal of a change under way, as files that survive a crash.

``segments.json`` holds what was confirmed last. ``segments.journal`` is there from before a change
until its confirmation, and holds what was in force before: whoever finds it at a start restores
that. A journal of the revision that is already confirmed is left over and means nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire, to_wire
from services.network.segments.errors import SegmentsStateError
from services.network.segments.model import SegmentDocument

R = TypeVar("R")
_BYTES_MAX = 8 << 20
# Written always: a file of another program's format must be refused, not half understood.
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """What is wanted.

    Attributes:
        revision: counts confirmed changes, from 1.
        document: as it was applied.
        fingerprint: of the kernel's table with it in force, see ``nft``; "" where not yet known.
        applied_s: Unix time.
    """

    format: int
    revision: int
    document: SegmentDocument
    fingerprint: str = ""
    applied_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """A change under way.

    Attributes:
        revision: the one that it leads to.
        previous: what was confirmed before, or None.
        snapshot: the table where it was there without a confirmed document, or "".
    """

    format: int
    revision: int
    previous: SegmentDocument | None = None
    snapshot: str = ""


class SegmentStore:
    """The two files below a directory, which is made when first written to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._confirmed = directory / "segments.json"
        self._journal = directory / "segments.journal"

    def read_confirmed(self) -> Confirmed | None:
        """What is wanted; None where nothing ever was.

        Raises:
            SegmentsStateError: the file is damaged or from a newer program.
        """
        return _read(self._confirmed, Confirmed)

    def read_journal(self) -> Journal | None:
        """The change that was not confirmed; errors as in ``read_confirmed``."""
        return _read(self._journal, Journal)

    def write_confirmed(self, confirmed: Confirmed) -> None:
        """Keep what is wanted; durable when it returns.

        Raises:
            SegmentsStateError: the file could not be written; the old one is whole.
        """
        self._write(self._confirmed, confirmed)

    def write_journal(self, journal: Journal) -> None:
        """Keep what was before; errors as in ``write_confirmed``."""
        self._write(self._journal, journal)

    def end_journal(self) -> None:
        """The change is confirmed or taken back."""
        try:
            with contextlib.suppress(FileNotFoundError):
                self._journal.unlink()
                _sync(self._directory)
        except OSError as exc:
            raise SegmentsStateError(f"can't remove {self._journal}: {exc.strerror}") from exc

    def _write(self, file: Path, record: object) -> None:
        temporary = file.with_suffix(file.suffix + ".new")
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(to_wire(record), stream)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.rename(file)
            _sync(self._directory)
        except OSError as exc:
            raise SegmentsStateError(f"can't write {file}: {exc.strerror}", file=str(file)) from exc


def _read(file: Path, record: type[R]) -> R | None:
    try:
        with file.open("rb") as stream:
            data = stream.read(_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise SegmentsStateError(f"can't read {file}: {exc.strerror}", file=str(file)) from exc
    try:
        if len(data) > _BYTES_MAX:
            raise ValueError(f"it is larger than {_BYTES_MAX} bytes")
        value = json.loads(data)
        if isinstance(value, dict) and value.get("format") != FORMAT:
            raise ValueError(f"its format is {value.get('format')!r:.20}, not {FORMAT}")
        return from_wire(record, value)
    except (ValueError, RemoteProtocolError) as exc:
        raise SegmentsStateError(
            f"{file} is not understood ({exc}): move it away, restart core/network, and apply "
            "the segments again",
            file=str(file),
        ) from exc


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
