"""Leases in PostgreSQL: each change is one transaction, and one at a time for all nodes.

What is allowed is said by ``rules``; here rows are read under a lock, judged, and written. A start
of a machine takes long against that, so one lock for the database is enough, and simple to trust.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg

from services.data.errors import DatabaseUnavailableError
from services.data.postgres import Connection
from services.data.refusal import one_line
from services.data.single import SingleConnection
from services.vm.documents.errors import DocumentElsewhereError, DocumentNotFoundError
from services.vm.leases import rows, rules
from services.vm.leases.errors import (
    AssignRefusedError,
    LeaseStoreError,
    LeasesUnavailableError,
)
from services.vm.leases.identity import local_prefix
from services.vm.leases.model import (
    LEASE_TTL_S,
    LEASES_LISTED_MAX,
    DiskUse,
    Lease,
    Machine,
    Wanted,
)

# Held no longer than the pause between two renewals, or a node without guests would hold a backend.
IDLE_S = 5.0
_NODES_NAMED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What came of an acquisition.

    Attributes:
        freed: leases of gone hosts that a takeover has ended, as they used the machine's disks.
    """

    lease: Lease
    freed: tuple[Lease, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Leases as they were at a moment of the database's clock.

    Attributes:
        disks: by the machine's UUID; only where they were asked for.
    """

    now_s: float
    leases: tuple[Lease, ...]
    disks: Mapping[str, tuple[DiskUse, ...]] = field(default_factory=dict)
    omitted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """A document that was given to a node.

    Attributes:
        was: the node that had it; the same one where nothing was to be done.
        epoch: of the document's owner.
    """

    was: str
    uuid: str
    epoch: int


class LeaseStore:
    """The table.

    Args:
        connect: opens a connection; one is held while the store is in use.
        ttl_s: how long a lease lasts without being renewed.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], *, ttl_s: float = LEASE_TTL_S
    ) -> None:
        self._single = SingleConnection(connect, idle_s=IDLE_S)
        self._ttl_s = ttl_s

    async def read(self, uuid: str) -> Lease | None:
        """A machine's lease; None where it never had one.

        Raises:
            LeasesUnavailableError: the database is away; so it is with all methods.
        """
        async with self._use() as connection:
            return await rows.read_lease(connection, uuid)

    async def list(self) -> Reading:
        """All leases with their disks, the held ones first."""
        async with self._use() as connection, connection.transaction():
            now_s = await rows.read_now(connection)
            found = await rows.fetch(connection, rows.LIST, [LEASES_LISTED_MAX + 1])
            leases = tuple(rows.lease_of(row) for row in found[:LEASES_LISTED_MAX])
            uses: dict[str, list[DiskUse]] = {}
            for row in await rows.fetch(connection, rows.DISKS, [[lease.uuid for lease in leases]]):
                uses.setdefault(row[0], []).append(rows.use_of(row[1:]))
            disks = {uuid: tuple(listed) for uuid, listed in uses.items()}
            omitted = len(found) - len(leases)
            return Reading(now_s=now_s, leases=leases, disks=disks, omitted=omitted)

    async def acquire(self, wanted: Wanted) -> Granted:
        """Give a node the right to run a machine and to use its disks so, in a new epoch.

        The node that has it already gets a new epoch. By a takeover from a node that is gone the
        machine's document goes along.

        Raises:
            LeasedElsewhereError, DocumentElsewhereError: the machine is another node's.
            DiskLeasedError: another machine uses a disk.
        """
        disks = rules.merged(wanted.disks)
        async with self._changing() as connection:
            now_s = await rows.read_now(connection)
            before = await rows.lock_lease(connection, wanted.machine.uuid)
            lease = rules.grant(before, wanted, now_s, self._ttl_s)
            others = await rows.read_others(connection, wanted.machine.uuid, disks)
            freed = rules.check_disks(wanted, others, now_s)
            await self._check_document(connection, wanted, before)
            for gone in freed:
                await rows.write_lease(connection, gone, ())
            await rows.write_lease(connection, lease, disks)
        return Granted(lease=lease, freed=freed)

    async def renew(self, node_id: str, running: Iterable[str] = ()) -> Reading:
        """Renew all leases of a node, in one statement.

        Args:
            node_id: whose.
            running: UUIDs whose leases are wanted too, whoever has them.
        """
        async with self._use() as connection:
            await connection.execute(rows.RENEW, [self._ttl_s, node_id])
            found = await rows.fetch(connection, rows.OF_NODE, [node_id, list(running)])
            now_s = await rows.read_now(connection)
            return Reading(now_s=now_s, leases=tuple(rows.lease_of(row) for row in found))

    async def release(self, uuid: str, *, node_id: str, epoch: int) -> bool:
        """Free a lease; False where it is not that node's in that epoch, which changes nothing."""
        async with self._use() as connection, connection.transaction():
            found = await rows.fetch(connection, rows.RELEASE, [uuid, node_id, epoch])
            if found:
                await connection.execute(rows.DROP_DISKS, [uuid])
            return bool(found)

    async def hand_over(self, uuid: str, *, from_node: str, to_node: str, epoch: int) -> Lease:
        """Give the right to another node, with the document, at one moment.

        Asked again, it answers the same. Before it returns, and where it fails, ``from_node`` has
        the right; from then on ``to_node``.

        Args:
            uuid: the machine's.
            from_node: who has it.
            to_node: who gets it.
            epoch: that ``from_node`` holds it by.

        Raises:
            LeaseLostError: ``from_node`` has no such lease; nothing is changed.
        """
        async with self._changing() as connection:
            before = await rows.lock_lease(connection, uuid)
            lease = rules.hand_over(
                before,
                uuid=uuid,
                from_node=from_node,
                to_node=to_node,
                epoch=epoch,
                now_s=await rows.read_now(connection),
                ttl_s=self._ttl_s,
            )
            if lease is not before:
                await rows.write_lease(connection, lease)
                await connection.execute(rows.DROP_LOCAL, [uuid, local_prefix(from_node)])
                machine = Machine(uuid=uuid, name=lease.name)
                if await rows.document_node(connection, machine) == from_node:
                    by = f"node/{from_node}"
                    await connection.execute(rows.MOVE_DOCUMENT, [to_node, by, lease.name])
        return lease

    async def set_disks(
        self, uuid: str, *, node_id: str, epoch: int, disks: Sequence[DiskUse]
    ) -> None:
        """Say what a machine uses by now.

        Raises:
            LeaseLostError: the lease is not that node's in that epoch.
            DiskLeasedError: another machine uses a disk; nothing is changed.
        """
        uses = rules.merged(disks)
        async with self._changing() as connection:
            lease = await rows.lock_lease(connection, uuid)
            if lease is None or (lease.node_id, lease.epoch, lease.is_held) != (
                node_id,
                epoch,
                True,
            ):
                raise rules.lost(lease, uuid, node_id, epoch)
            machine = Machine(uuid=uuid, name=lease.name)
            wanted = Wanted(machine=machine, node_id=node_id, disks=uses)
            others = await rows.read_others(connection, uuid, uses)
            rules.check_disks(wanted, others, await rows.read_now(connection))
            await rows.write_disks(connection, uuid, uses)

    async def assign(
        self, name: str, *, node_id: str, by: str, takeover: bool = False, documents_max: int
    ) -> Assigned:
        """Give the document of a machine that does not run to another node.

        Raises:
            DocumentNotFoundError: there is none.
            AssignRefusedError: there is no such node, or it may not have it.
            LeasedElsewhereError: some node has the machine's lease.
        """
        async with self._changing() as connection:
            found = await rows.fetch(connection, rows.WHOLE_DOCUMENT, [name])
            if not found:
                raise DocumentNotFoundError(f"there is no document {name}", name=name)
            was, document, epoch = found[0]
            assigned = Assigned(was=was, uuid=rows.document_uuid(name, document), epoch=epoch)
            if was == node_id:
                return assigned
            await _check_node(connection, node_id, document, documents_max)
            lease = await rows.lock_lease(connection, assigned.uuid)
            if lease is not None and lease.is_held:
                # As if the target asked for it: its own lease does not stand against it.
                machine = Machine(uuid=assigned.uuid, name=name)
                wanted = Wanted(machine=machine, node_id=node_id, by=by, takeover=takeover)
                rules.grant(lease, wanted, await rows.read_now(connection))
                if lease.node_id != node_id:
                    await rows.write_lease(connection, rules.take_away(lease), ())
            moved = await rows.fetch(connection, rows.MOVE_DOCUMENT, [node_id, by, name])
            return replace(assigned, epoch=moved[0][0])

    async def prune(self) -> None:
        """Forget machines that have stopped for good."""
        async with self._changing() as connection:
            await connection.execute(rows.PRUNE, [rows.KEPT_DAYS])

    async def close(self) -> None:
        """Close the connection."""
        await self._single.close()

    async def _check_document(
        self, connection: Connection, wanted: Wanted, before: Lease | None
    ) -> None:
        owner = await rows.document_node(connection, wanted.machine)
        if owner is None or owner == wanted.node_id:
            return
        name = wanted.machine.name
        is_taken = before is not None and before.is_held and before.node_id == owner
        if wanted.takeover and is_taken:  # ``grant`` has made sure that its lease ran out
            await connection.execute(rows.MOVE_DOCUMENT, [wanted.node_id, wanted.by, name])
            return
        raise DocumentElsewhereError(
            f"the document of {name} belongs to node {owner}; "
            f"'novacronctl vm assign {name} {wanted.node_id}' gives it to this one",
            name=name,
            node_id=owner,
        )

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[Connection]:
        """A transaction that no other change of leases is beside."""
        async with self._use() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", [rows.LOCK_KEY])
            yield connection

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[Connection]:
        try:
            async with self._single.use() as connection:
                yield connection
        except DatabaseUnavailableError as exc:
            raise LeasesUnavailableError(
                f"the database is away, so leases can't be changed: {exc.message}"
            ) from exc
        except psycopg.Error as exc:
            raise LeaseStoreError(
                f"the table of leases can't be used: {one_line(str(exc))}",
                sqlstate=exc.sqlstate or "",
            ) from exc


async def _check_node(
    connection: Connection, node_id: str, document: Any, documents_max: int
) -> None:  # Any: the document's JSON
    nodes = [str(row[0]) for row in await rows.fetch(connection, rows.NODES, [])]
    if node_id not in nodes:
        known = ", ".join(nodes[:_NODES_NAMED]) or "none"
        raise AssignRefusedError(f"there is no node {node_id}; known are {known}")
    allowed = (document.get("placement") or {}).get("nodes") or []
    if allowed and node_id not in allowed:
        raise AssignRefusedError(
            f"its placement allows {', '.join(allowed)[:200]}, and not {node_id}: change the "
            "document first"
        )
    count = (await rows.fetch(connection, rows.COUNT_DOCUMENTS, [node_id]))[0][0]
    if count >= documents_max:
        raise AssignRefusedError(f"{node_id} has {count} documents, as many as a node may have")
