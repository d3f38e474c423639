"""The file that remembers for which boot of the host machines were started."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire, to_wire
from services.files import replace_file
from services.vm.autostart.model import AutostartRecord

FORMAT = 1
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# A thousand machines, each with a long message.
_FILE_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    format: int
    node_id: str
    record: AutostartRecord


class AutostartFile:
    """The record of one node.

    Args:
        directory: where it is kept; made when first written to.
        node_id: whose it is.
    """

    def __init__(self, directory: Path, *, node_id: str) -> None:
        self._path = directory / "autostart.json"
        self._node_id = node_id

    def read(self) -> AutostartRecord | None:
        """The record; None where there is none.

        Raises:
            ValueError: there is something else; the message says what.
            OSError: it can't be read.
        """
        try:
            with self._path.open("rb") as stream:
                data = stream.read(_FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        if len(data) > _FILE_BYTES_MAX:
            raise ValueError(f"{self._path} is too large")
        try:
            content = from_wire(_File, json.loads(data))
        except (ValueError, RecursionError, RemoteProtocolError) as exc:
            raise ValueError(f"{self._path} is not understood: {exc}") from exc
        if content.format != FORMAT or content.node_id != self._node_id:
            raise ValueError(f"{self._path} is of another node or a newer program")
        return content.record

    def write(self, record: AutostartRecord) -> None:
        """Keep a record; it is on disk when this returns.

        Raises:
            OSError: it is not.
        """
        content = _File(format=FORMAT, node_id=self._node_id, record=record)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._path, json.dumps(to_wire(content)))


def read_boot_id(path: Path = BOOT_ID) -> str:
    """The identity of the host's present boot.

    Raises:
        OSError: the kernel does not tell.
    """
    return path.read_text().strip()
