"""Checkpoints: the last state that a component asked to keep, and got back unchanged or not at all.

The state is any plain value, kept as msgpack with its SHA-256. The version is the component's
own number of the state's format. One checkpoint per node and component; saving replaces it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from protocol import codec
from protocol.records import Plain
from services.data.errors import (
    CheckpointDamagedError,
    CheckpointOwnerError,
    CheckpointTooLargeError,
)

Connection = AsyncConnection[Any]  # Any: rows are tuples or whatever the caller set

# PostgreSQL's integer.
VERSION_MAX = 2**31 - 1

_UPSERT = """
    INSERT INTO checkpoints (node_id, component, version, format, state, sha256, created_at)
    VALUES (%s, %s, %s, 'msgpack', %s, %s, now())
    ON CONFLICT (node_id, component) DO UPDATE SET
        version = excluded.version, format = excluded.format, state = excluded.state,
        sha256 = excluded.sha256, created_at = excluded.created_at
"""
_SELECT = """
    SELECT version, state, sha256, extract(epoch FROM created_at)::float8
    FROM checkpoints WHERE node_id = %s AND component = %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveRequest:
    """Body of ``checkpoint.save``; ``component`` is the caller's path or id."""

    component: str
    version: int
    state: Plain

    def __post_init__(self) -> None:
        if not 0 <= self.version <= VERSION_MAX:
            raise ValueError(f"version is {self.version}; 0 to {VERSION_MAX}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """Body of ``checkpoint.restore``; ``component`` is the caller's path or id."""

    component: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What ``checkpoint.restore`` answers; ``created_s`` is Unix time."""

    version: int
    state: Plain
    created_s: float


def check_owner(component: str, caller: str, *, free: frozenset[str]) -> None:
    """See to it that a component only reaches its own checkpoint.

    Args:
        component: whose checkpoint, a path or its last part.
        caller: path of the calling process.
        free: callers that may reach every one.

    Raises:
        CheckpointOwnerError: it is another component's.
    """
    if caller not in free and component not in (caller, component_id(caller)):
        raise CheckpointOwnerError(f"{caller} may not reach the checkpoint of {component}")


def encode_state(state: Plain, *, bytes_max: int) -> tuple[bytes, bytes]:
    """The state as bytes, and their SHA-256.

    Raises:
        CheckpointTooLargeError: it is over the limit.
        LocalProtocolError: it is no plain value.
    """
    data = codec.encode(state)
    if len(data) > bytes_max:
        raise CheckpointTooLargeError(
            f"the state has {len(data)} bytes; a checkpoint holds at most {bytes_max}",
            size_bytes=len(data),
        )
    return data, hashlib.sha256(data).digest()


def decode_state(data: bytes, digest: bytes, component: str) -> Plain:
    """The state back from its bytes.

    Raises:
        CheckpointDamagedError: the bytes are not those that were saved.
    """
    if hashlib.sha256(data).digest() != digest:
        raise CheckpointDamagedError(
            f"the checkpoint of {component} is damaged: its SHA-256 is not the one it was saved "
            "with",
            component=component,
        )
    return codec.decode(data)


def component_id(component: str) -> str:
    """The name under which a component's checkpoint is kept: the last part of its path."""
    return component.rpartition("/")[2]


async def save(
    connection: Connection, node_id: str, request: SaveRequest, *, bytes_max: int
) -> None:
    """Replace the component's checkpoint; durable when this returns."""
    data, digest = encode_state(request.state, bytes_max=bytes_max)
    key = component_id(request.component)
    values = [node_id, key, request.version, data, digest]
    await connection.execute(_UPSERT, values)


async def restore(connection: Connection, node_id: str, component: str) -> Checkpoint | None:
    """The component's checkpoint, or None when it never saved one."""
    key = component_id(component)
    row = await (await connection.execute(_SELECT, [node_id, key])).fetchone()
    if row is None:
        return None
    version, data, digest, created_s = row
    state = decode_state(bytes(data), bytes(digest), component)
    return Checkpoint(version=version, state=state, created_s=created_s)
