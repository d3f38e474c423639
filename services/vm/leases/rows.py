"""Statements about leases, and their rows as records."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Sequence
from typing import Any

from services.data.postgres import Connection, Row
from services.vm.documents.model import NAMESPACE
from services.vm.leases.model import DiskMode, DiskUse, Lease, Machine
from services.vm.leases.rules import OtherUse

# "novalses" as a number: any constant serves that no other part of the database uses.
LOCK_KEY = int.from_bytes(b"novalses", "big")
KEPT_DAYS = 90
LEASE = """
    uuid, name, node_id, epoch, is_held, extract(epoch FROM acquired_at)::float8,
    extract(epoch FROM renewed_at)::float8, extract(epoch FROM expires_at)::float8, acquired_by
"""
NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"
READ = f"SELECT {LEASE} FROM vm_leases WHERE uuid = %s"  # noqa: S608 - constants
LIST = f"SELECT {LEASE} FROM vm_leases ORDER BY is_held DESC, name, uuid LIMIT %s"  # noqa: S608 - constants
OF_NODE = f"""
SELECT {LEASE} FROM vm_leases WHERE (node_id = %s AND is_held) OR uuid = ANY (%s)
"""  # noqa: S608 - constants
RENEW = """
UPDATE vm_leases SET renewed_at = clock_timestamp(),
    expires_at = clock_timestamp() + %s * interval '1 second'
WHERE node_id = %s AND is_held
"""
WRITE = """
INSERT INTO vm_leases
    (uuid, name, node_id, epoch, is_held, acquired_at, renewed_at, expires_at, acquired_by)
VALUES (%s, %s, %s, %s, %s, to_timestamp(%s), to_timestamp(%s), to_timestamp(%s), %s)
ON CONFLICT (uuid) DO UPDATE SET name = excluded.name, node_id = excluded.node_id,
    epoch = excluded.epoch, is_held = excluded.is_held, acquired_at = excluded.acquired_at,
    renewed_at = excluded.renewed_at, expires_at = excluded.expires_at,
    acquired_by = excluded.acquired_by
"""
RELEASE = """
UPDATE vm_leases SET is_held = false, renewed_at = clock_timestamp()
WHERE uuid = %s AND node_id = %s AND epoch = %s AND is_held RETURNING uuid
"""
OTHERS = f"""
SELECT d.key, d.mode, d.path, {LEASE.replace("uuid,", "l.uuid,")}
FROM vm_lease_disks d JOIN vm_leases l ON l.uuid = d.uuid
WHERE d.key = ANY (%s) AND d.uuid <> %s AND l.is_held ORDER BY l.uuid, d.key FOR UPDATE OF l
"""  # noqa: S608 - constants
DISKS = "SELECT uuid, key, mode, path FROM vm_lease_disks WHERE uuid = ANY (%s) ORDER BY key"
PUT_DISKS = """
INSERT INTO vm_lease_disks (uuid, key, mode, path)
SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::text[])
"""
DROP_DISKS = "DELETE FROM vm_lease_disks WHERE uuid = %s"
DROP_LOCAL = "DELETE FROM vm_lease_disks WHERE uuid = %s AND starts_with(key, %s)"
DOCUMENT = """
SELECT node_id, document FROM vm_documents WHERE name = %s AND removed_at IS NULL
"""
MOVE_DOCUMENT = """
UPDATE vm_documents SET node_id = %s, epoch = epoch + 1, version = version + 1,
    updated_at = clock_timestamp(), updated_by = %s
WHERE name = %s AND removed_at IS NULL RETURNING epoch
"""
WHOLE_DOCUMENT = """
SELECT node_id, document, epoch FROM vm_documents WHERE name = %s AND removed_at IS NULL FOR UPDATE
"""
COUNT_DOCUMENTS = "SELECT count(*) FROM vm_documents WHERE node_id = %s AND removed_at IS NULL"
NODES = "SELECT node_id FROM node ORDER BY node_id"
PRUNE = """
DELETE FROM vm_leases l WHERE NOT is_held AND renewed_at < now() - %s * interval '1 day'
AND NOT EXISTS (SELECT FROM vm_documents v WHERE v.name = l.name AND v.removed_at IS NULL)
"""


async def document_node(connection: Connection, machine: Machine) -> str | None:
    """The node that the machine's document belongs to; None where it has none.

    A domain of that name with another UUID is another machine.
    """
    rows = await fetch(connection, DOCUMENT, [machine.name])
    if not rows:
        return None
    owner, document = rows[0]
    return str(owner) if document_uuid(machine.name, document) == machine.uuid else None


def document_uuid(name: str, document: Any) -> str:  # Any: the document's JSON
    """The UUID of a document's machine, also where a newer program wrote the document."""
    return document.get("uuid") or str(uuids.uuid5(NAMESPACE, name))


async def read_now(connection: Connection) -> float:
    """The database's clock, in Unix seconds."""
    return float((await fetch(connection, NOW, []))[0][0])


async def read_lease(connection: Connection, uuid: str) -> Lease | None:
    """A machine's lease; None where it never had one."""
    rows = await fetch(connection, READ, [uuid])
    return lease_of(rows[0]) if rows else None


async def lock_lease(connection: Connection, uuid: str) -> Lease | None:
    """A machine's lease, which nobody else changes or renews until the transaction has ended."""
    found = await fetch(connection, f"{READ} FOR UPDATE", [uuid])
    return lease_of(found[0]) if found else None


async def read_others(
    connection: Connection, uuid: str, disks: Sequence[DiskUse]
) -> list[OtherUse]:
    """Uses of the same disks by other machines, whose leases stay so until the end."""
    rows = await fetch(connection, OTHERS, [[use.key for use in disks], uuid])
    return [OtherUse(use=use_of(row[:3]), lease=lease_of(row[3:])) for row in rows]


async def write_lease(
    connection: Connection, lease: Lease, disks: Sequence[DiskUse] | None = None
) -> None:
    """Put a lease, and its disks where they are given."""
    await connection.execute(
        WRITE,
        [
            lease.uuid,
            lease.name,
            lease.node_id,
            lease.epoch,
            lease.is_held,
            lease.acquired_s,
            lease.renewed_s,
            lease.expires_s,
            lease.acquired_by,
        ],
    )
    if disks is not None:
        await write_disks(connection, lease.uuid, disks)


async def write_disks(connection: Connection, uuid: str, disks: Sequence[DiskUse]) -> None:
    """Put what a machine uses in the place of what it used."""
    await connection.execute(DROP_DISKS, [uuid])
    if disks:
        columns = zip(*((use.key, use.mode.value, use.path) for use in disks), strict=True)
        await connection.execute(PUT_DISKS, [uuid, *map(list, columns)])


async def fetch(connection: Connection, query: str, parameters: Sequence[object]) -> list[Row]:
    """The rows that a statement gives."""
    cursor = await connection.execute(query, parameters)
    return await cursor.fetchall()


def lease_of(row: Any) -> Lease:  # Any: columns of LEASE
    """A row's lease."""
    return Lease(
        uuid=row[0],
        name=row[1],
        node_id=row[2],
        epoch=row[3],
        is_held=row[4],
        acquired_s=row[5],
        renewed_s=row[6],
        expires_s=row[7],
        acquired_by=row[8],
    )


def use_of(row: Any) -> DiskUse:  # Any: key, mode, path
    """A row's use of a disk."""
    return DiskUse(key=row[0], mode=DiskMode(row[1]), path=row[2])
