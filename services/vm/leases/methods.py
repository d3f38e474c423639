"""The calls about leases: who has which, and giving a document to another node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from protocol.errors import NovacronError
from services.vm.documents.store import DOCUMENTS_MAX
from services.vm.leases.errors import LeasesUnavailableError
from services.vm.leases.guard import Guard
from services.vm.leases.host import Host
from services.vm.leases.model import (
    AssignReply,
    AssignRequest,
    DiskUse,
    Lease,
    LeaseInfo,
    LeaseList,
)
from services.vm.leases.remembered import Remembered
from services.vm.leases.store import LeaseStore, Reading
from services.vm.leases.watch import Watch
from supervisor.child.service import ServiceContext

_DISKS_MAX = 16
# Of a message of 1 MiB; the leases themselves take some 350 bytes each.
_PATH_BYTES_MAX = 400 << 10


class Methods:
    """What operators ask and order; see ``Guard`` and ``Watch`` for the arguments."""

    def __init__(
        self,
        context: ServiceContext,
        *,
        node_id: str,
        store: LeaseStore,
        host: Host,
        guard: Guard,
        watch: Watch,
        remembered: Remembered,
    ) -> None:
        self._context = context
        self._node_id = node_id
        self._store = store
        self._host = host
        self._guard = guard
        self._watch = watch
        self._remembered = remembered

    async def leases(self) -> LeaseList:
        """All leases of the database; this node's own, as it remembers them, while it is away."""
        try:
            running = set(await self._host.look())
        except NovacronError:
            running = set(self._host.running)
        try:
            reading, is_stale = await self._store.list(), False
        except LeasesUnavailableError:
            reading, is_stale = await self._remembered_reading(), True
        infos = [
            self._info(lease, reading.now_s, reading.disks, running) for lease in reading.leases
        ]
        return LeaseList(
            node_id=self._node_id,
            leases=fit_disks(infos),
            is_stale=is_stale,
            unleased=dict(self._watch.unleased),
            omitted=reading.omitted,
        )

    async def assign(self, request: AssignRequest, by: str) -> AssignReply:
        """Give the document of a machine that does not run to another node.

        The domain of it stays where it was; it can't be started there any more.

        Raises:
            DocumentNotFoundError, AssignRefusedError, LeasedElsewhereError: as ``LeaseStore``.
        """
        name = request.name
        for uuid, held in (await self._remembered.read()).held.items():
            if held.name == name:  # ended a moment ago, perhaps
                await self._guard.ended(uuid)
        found = await self._store.assign(
            name,
            node_id=request.node,
            by=by,
            takeover=request.takeover,
            documents_max=DOCUMENTS_MAX,
        )
        changed = found.was != request.node
        if changed:
            fields = {"vm": name, "was": found.was, "node": request.node, "epoch": found.epoch}
            self._context.emit("vm:document-assigned", **fields, caller=by)
        return AssignReply(
            name=name, node=request.node, was=found.was, epoch=found.epoch, changed=changed
        )

    async def _remembered_reading(self) -> Reading:
        record = await self._remembered.read()
        leases = tuple(
            Lease(
                uuid=uuid,
                name=held.name,
                node_id=self._node_id,
                epoch=held.epoch,
                is_held=True,
                acquired_s=0.0,
                renewed_s=0.0,
                expires_s=1.0,
            )
            for uuid, held in sorted(record.held.items())
        )
        disks = {uuid: held.disks for uuid, held in record.held.items()}
        return Reading(now_s=0.0, leases=leases, disks=disks)

    def _info(
        self,
        lease: Lease,
        now_s: float,
        disks: Mapping[str, tuple[DiskUse, ...]],
        running: set[str],
    ) -> LeaseInfo:
        state = lease.state(now_s)
        uses = {(use.path, use.mode.value) for use in disks.get(lease.uuid, ())}
        return LeaseInfo(
            uuid=lease.uuid,
            name=lease.name,
            node_id=lease.node_id,
            epoch=lease.epoch,
            state=state,
            age_s=max(now_s - lease.acquired_s, 0.0),
            renewed_ago_s=max(now_s - lease.renewed_s, 0.0),
            acquired_by=lease.acquired_by,
            is_running=lease.uuid in running,
            fenced=self._watch.fenced.get(lease.uuid, "").partition(": ")[2],
            disks=tuple((mode, path) for path, mode in sorted(uses))[:_DISKS_MAX],
        )


def fit_disks(
    infos: Sequence[LeaseInfo], bytes_max: int = _PATH_BYTES_MAX
) -> tuple[LeaseInfo, ...]:
    """The leases; from where the paths do not fit into a message any more, without disks."""
    found = []
    for info in infos:
        bytes_max -= sum(len(path.encode()) + 10 for _, path in info.disks)
        found.append(info if bytes_max >= 0 else replace(info, disks=()))
    return tuple(found)
