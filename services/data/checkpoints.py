"""Checkpoints in PostgreSQL: a component gets back what it saved last, or learns why not.

Saving is one statement: a new generation, and the end of what is older than the last good one. It
is acknowledged when it is durable. Restoring takes the newest generation that can be verified and
says which newer ones can't; those are marked, so that saving keeps the good one until there is
another good one.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import class_row

from protocol.errors import NovacronError
from services.data.checkpoint_records import (
    ENVELOPE,
    Checkpoint,
    Refusal,
    SaveReply,
    SaveRequest,
    StoredCheckpoint,
    component_id,
    pack,
    unpack,
)
from services.data.errors import (
    CheckpointDamagedError,
    CheckpointForeignError,
    DatabaseConflictError,
)

Connection = AsyncConnection[Any]  # Any: rows are tuples or whatever the caller set

# Two saves of one component at once is all that there can be, and a third that died.
_ATTEMPTS_MAX = 4
# The last two, and what was refused since; saving keeps no more.
_ROWS_MAX = 16

_SAVE = """
    WITH known AS (
        SELECT coalesce(max(generation), 0) AS newest,
               coalesce(max(generation) FILTER (WHERE NOT is_refused), 0) AS good
        FROM checkpoints WHERE node_id = %(node_id)s AND component = %(component)s
    ), saved AS (
        INSERT INTO checkpoints (node_id, component, generation, version, format, state, sha256,
                                 created_at)
        SELECT %(node_id)s, %(component)s, newest + 1, %(version)s, %(format)s, %(state)s,
               %(sha256)s, now()
        FROM known WHERE %(after)s::bigint IS NULL OR newest = %(after)s
        RETURNING generation
    ), dropped AS (
        DELETE FROM checkpoints USING known, saved
        WHERE node_id = %(node_id)s AND component = %(component)s
          AND checkpoints.generation < known.good
    )
    SELECT saved.generation, known.newest FROM known LEFT JOIN saved ON true
"""
_SELECT = """
    SELECT generation, version, format, state AS data, sha256 AS digest,
           extract(epoch FROM created_at)::float8 AS created_s
    FROM checkpoints WHERE node_id = %s AND component = %s ORDER BY generation DESC LIMIT %s
"""
_MARK = """
    UPDATE checkpoints SET is_refused = true
    WHERE node_id = %s AND component = %s AND generation = ANY(%s) AND NOT is_refused
"""


async def save(
    connection: Connection, node_id: str, request: SaveRequest, *, bytes_max: int
) -> SaveReply:
    """Add a generation; durable when this returns.

    Args:
        connection: in autocommit mode.
        node_id: whose component it is.
        request: what to save.
        bytes_max: the largest state.

    Raises:
        CheckpointTooLargeError: nothing was changed.
        DatabaseConflictError: others save for the same component all the time.
    """
    data, digest = pack(node_id, request, bytes_max=bytes_max)
    values = {
        "node_id": node_id,
        "component": component_id(request.component),
        "version": request.version,
        "format": ENVELOPE,
        "state": data,
        "sha256": digest,
        "after": request.after,
    }
    for _ in range(_ATTEMPTS_MAX):
        try:
            row = await (await connection.execute(_SAVE, values)).fetchone()
        except psycopg.errors.UniqueViolation:  # another save took the number
            continue
        assert row is not None
        saved, newest = row
        return SaveReply(is_saved=saved is not None, generation=saved or newest)
    raise DatabaseConflictError(f"checkpoints of {request.component} are saved too fast")


async def restore(connection: Connection, node_id: str, component: str) -> Checkpoint | None:
    """The newest generation that can be used, or None when there was never one.

    Raises:
        CheckpointDamagedError, CheckpointForeignError: there are some, and none can be used; the
            error is the newest one's.
    """
    key = component_id(component)
    refused: list[Refusal] = []
    try:
        for stored in await _read(connection, node_id, key):
            try:
                state = unpack(stored, node_id=node_id, component=key)
            except (CheckpointDamagedError, CheckpointForeignError) as exc:
                refused.append(_refusal(stored, exc))
                continue
            return Checkpoint(
                version=stored.version,
                state=state,
                created_s=stored.created_s,
                generation=stored.generation,
                refused=tuple(refused),
            )
    finally:
        if refused:
            await connection.execute(_MARK, [node_id, key, [r.generation for r in refused]])
    if not refused:
        return None
    is_damaged = refused[0].code == CheckpointDamagedError.code
    kind = CheckpointDamagedError if is_damaged else CheckpointForeignError
    reasons = "; ".join(f"generation {r.generation}: {r.reason}" for r in refused)
    raise kind(f"no checkpoint of {key} can be used: {reasons}", refused=tuple(refused))


async def _read(connection: Connection, node_id: str, key: str) -> list[StoredCheckpoint]:
    async with connection.cursor(row_factory=class_row(StoredCheckpoint)) as cursor:
        await cursor.execute(_SELECT, [node_id, key, _ROWS_MAX])
        return await cursor.fetchall()


def _refusal(stored: StoredCheckpoint, error: NovacronError) -> Refusal:
    return Refusal(generation=stored.generation, code=error.code, reason=str(error))
