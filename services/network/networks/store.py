"""The wanted networks and the journal of a change under way, as files that survive a crash.

``networks.json`` holds what was confirmed last. ``networks.journal`` is there from before the first
step of a change until its confirmation, and holds the steps that lead back: whoever finds it at a
start takes those that are still needed. A journal of the revision that is already confirmed is left
over and means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.network.networks.errors import NetworksStateError
from services.network.networks.model import NetworksDocument
from services.network.networks.steps import Step
from services.network.statefile import StateFile

# Written always: a file of another program's format must be refused, not half understood.
FORMAT = 1
_ADVICE = "move it away, restart core/network, and apply the networks again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """What is wanted.

    Attributes:
        revision: counts confirmed changes, from 1.
        document: as it was applied.
        boot: id of the kernel's boot that it was applied in; links do not survive it.
        applied_s: Unix time.
    """

    format: int
    revision: int
    document: NetworksDocument
    boot: str = ""
    applied_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """A change under way.

    Attributes:
        revision: the one that it leads to.
        undo: what leads back, in the order in which it is taken.
        boot: id of the kernel's boot that it began in; after another one nothing is left of it.
    """

    format: int
    revision: int
    undo: tuple[Step, ...]
    boot: str = ""


class NetworkStore:
    """The two files below a directory, which is made when first written to."""

    def __init__(self, directory: Path) -> None:
        self._confirmed = StateFile(
            directory / "networks.json",
            Confirmed,
            expected_format=FORMAT,
            error=NetworksStateError,
            advice=_ADVICE,
        )
        self._journal = StateFile(
            directory / "networks.journal",
            Journal,
            expected_format=FORMAT,
            error=NetworksStateError,
            advice=_ADVICE,
        )

    def read_confirmed(self) -> Confirmed | None:
        """What is wanted; None where nothing ever was.

        Raises:
            NetworksStateError: the file is damaged or from a newer program.
        """
        return self._confirmed.read()

    def read_journal(self) -> Journal | None:
        """The change that was not confirmed; errors as in ``read_confirmed``."""
        return self._journal.read()

    def write_confirmed(self, confirmed: Confirmed) -> None:
        """Keep what is wanted; durable when it returns.

        Raises:
            NetworksStateError: the file could not be written; the old one is whole.
        """
        self._confirmed.write(confirmed)

    def put_back(self, confirmed: Confirmed | None) -> None:
        """Keep what was wanted before, which may be nothing; errors as in ``write_confirmed``."""
        if confirmed is None:
            self._confirmed.remove()
        else:
            self._confirmed.write(confirmed)

    def write_journal(self, journal: Journal) -> None:
        """Keep the way back; errors as in ``write_confirmed``."""
        self._journal.write(journal)

    def end_journal(self) -> None:
        """The change is confirmed or taken back; errors as in ``write_confirmed``."""
        self._journal.remove()


def boot_id() -> str:
    """The kernel's id of this boot; "" where it gives none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
