"""The wanted segments and the journal of a change under way, as files that survive a crash.

``segments.json`` holds what was confirmed last. ``segments.journal`` is there from before a change
until its confirmation, and holds what was in force before: whoever finds it at a start restores
that. A journal of the revision that is already confirmed is left over and means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.network.segments.errors import SegmentsStateError
from services.network.segments.model import SegmentDocument
from services.network.statefile import StateFile

# Written always: a file of another program's format must be refused, not half understood.
FORMAT = 1
_ADVICE = "move it away, restart core/network, and apply the segments again"


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
        self._confirmed = StateFile(
            directory / "segments.json",
            Confirmed,
            expected_format=FORMAT,
            error=SegmentsStateError,
            advice=_ADVICE,
        )
        self._journal = StateFile(
            directory / "segments.journal",
            Journal,
            expected_format=FORMAT,
            error=SegmentsStateError,
            advice=_ADVICE,
        )

    def read_confirmed(self) -> Confirmed | None:
        """What is wanted; None where nothing ever was.

        Raises:
            SegmentsStateError: the file is damaged or from a newer program.
        """
        return self._confirmed.read()

    def read_journal(self) -> Journal | None:
        """The change that was not confirmed; errors as in ``read_confirmed``."""
        return self._journal.read()

    def write_confirmed(self, confirmed: Confirmed) -> None:
        """Keep what is wanted; durable when it returns.

        Raises:
            SegmentsStateError: the file could not be written; the old one is whole.
        """
        self._confirmed.write(confirmed)

    def write_journal(self, journal: Journal) -> None:
        """Keep what was before; errors as in ``write_confirmed``."""
        self._journal.write(journal)

    def end_journal(self) -> None:
        """The change is confirmed or taken back; errors as in ``write_confirmed``."""
        self._journal.remove()
