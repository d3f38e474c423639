"""What this node has leases for, in a file, for when the database is away.

It counts for one boot of the host: by a takeover a person says that the host was off, and after
that nothing of before gives a right.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire, to_wire
from services.files import replace_file
from services.vm.leases.model import DiskUse, Machine

FORMAT = 1
_BYTES_MAX = 16 << 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLease:
    """A lease of this node."""

    name: str
    epoch: int
    disks: tuple[DiskUse, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """The leases of a node, and the machines that it has lost while they ran.

    Attributes:
        boot_id: of the host's boot that it is of.
        held: by UUID.
        fenced: the reasons, by UUID.
    """

    format: int = FORMAT
    node_id: str = ""
    boot_id: str = ""
    held: dict[str, HeldLease] = field(default_factory=dict)
    fenced: dict[str, str] = field(default_factory=dict)

    def allows(self, machine: Machine, disks: Sequence[DiskUse]) -> int:
        """The epoch that the machine may be started by without asking; 0 for none."""
        lease = self.held.get(machine.uuid)
        if lease is None or machine.uuid in self.fenced:
            return 0
        known = {(use.key, use.mode) for use in lease.disks}
        return lease.epoch if all((use.key, use.mode) in known for use in disks) else 0


def boot_id() -> str:
    """The kernel's name for this boot of the host; where it has none, another one each time."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return str(uuid.uuid4())


def read_record(path: Path, node_id: str) -> LeaseRecord:
    """The record; an empty one where there is none of this node and boot that is understood.

    Raises:
        ValueError: there is a file that is not understood; it gives no right.
    """
    empty = LeaseRecord(node_id=node_id, boot_id=boot_id())
    try:
        with path.open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
        if len(data) > _BYTES_MAX:
            raise ValueError("it is too large")
        record = from_wire(LeaseRecord, json.loads(data))
    except FileNotFoundError:
        return empty
    except (OSError, ValueError, RemoteProtocolError) as exc:
        raise ValueError(f"{path} is not understood: {exc}") from exc
    is_ours = (record.format, record.node_id, record.boot_id) == (FORMAT, node_id, empty.boot_id)
    return record if is_ours else empty


def write_record(path: Path, record: LeaseRecord) -> None:
    """Put the record in the place of the one before, on disk when this returns.

    Raises:
        OSError: it can't be written; the one before is there still.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, json.dumps(to_wire(record)))
