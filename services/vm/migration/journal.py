"""What a node has begun to move, in a file per guest, so that a later start of it finds the end.

The file is on disk before libvirt is told to send, and goes when nothing is left to be done.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire, to_wire
from services.files import replace_file
from services.vm.migration.model import MigrateRequest
from services.vm.migration.routes import Route

FORMAT = 1
_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Undertaking:
    """One migration.

    Attributes:
        from_node: whose file it is.
        by: who ordered it.
        epoch: that ``from_node`` holds the guest by; 0 where nobody keeps who owns it.
        was_paused: before it began.
        was_defined_there: the target had a definition of it before.
        made_disks: files that were made on the target.
        was_let_go: the guest's processors were started there, or may have been.
        is_handed_over: the target's node owns it.
    """

    uuid: str
    name: str
    from_node: str
    request: MigrateRequest
    route: Route
    by: str = ""
    format: int = FORMAT
    epoch: int = 0
    began_s: float = 0.0
    was_paused: bool = False
    was_defined_there: bool = False
    made_disks: tuple[str, ...] = ()
    was_let_go: bool = False
    is_handed_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a directory holds.

    Attributes:
        unreadable: files that say nothing, with the reason.
    """

    undertakings: tuple[Undertaking, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)


class Journal:
    """The files of a node; every method blocks.

    Args:
        directory: made when first written to; None keeps all in memory alone.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._kept: dict[str, Undertaking] = {}

    def read(self) -> Found:
        """All that is begun."""
        found: list[Undertaking] = []
        unreadable: dict[str, str] = {}
        for path in sorted(self._directory.glob("*.json")) if self._directory else ():
            try:
                found.append(_read(path))
            except (OSError, ValueError, RemoteProtocolError) as exc:
                unreadable[str(path)] = str(exc)
        return Found(undertakings=tuple(found), unreadable=unreadable)

    def read_one(self, uuid: str) -> Undertaking | None:
        """What is begun with a guest; None where nothing is, or it can't be read any more."""
        if self._directory is None:
            return self._kept.get(uuid)
        try:
            return _read(self._path(uuid))
        except (OSError, ValueError, RemoteProtocolError):
            return None

    def write(self, undertaking: Undertaking) -> None:
        """Keep it; on disk when this returns.

        Raises:
            OSError: it can't be written; what was there is there still.
        """
        if self._directory is None:
            self._kept[undertaking.uuid] = undertaking
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._path(undertaking.uuid), json.dumps(to_wire(undertaking)))

    def drop(self, uuid: str) -> None:
        """Forget it; none is no error."""
        self._kept.pop(uuid, None)
        if self._directory is not None:
            with contextlib.suppress(FileNotFoundError):
                self._path(uuid).unlink()

    def _path(self, uuid: str) -> Path:
        assert self._directory is not None
        assert "/" not in uuid
        return self._directory / f"{uuid}.json"


def _read(path: Path) -> Undertaking:
    with path.open("rb") as file:
        data = file.read(_BYTES_MAX + 1)
    if len(data) > _BYTES_MAX:
        raise ValueError("it is too large")
    undertaking = from_wire(Undertaking, json.loads(data))
    if undertaking.format != FORMAT:
        raise ValueError("a newer program wrote it")
    if path.stem != undertaking.uuid:
        raise ValueError("its name is not that of the guest in it")
    return undertaking
