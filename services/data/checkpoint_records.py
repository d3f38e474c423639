"""What a checkpoint is, on the wire and as it is stored. Pure; no driver is loaded.

Stored, format ``envelope``: msgpack of {"node", "component", "version", "state"}, and the SHA-256
of these bytes. So a row tells a torn or edited state (the hash is another one), and one that
belongs elsewhere (the hash is right, the names are not those of the row that was asked for).
Format ``msgpack``, of earlier programs, is the bare state with its hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from protocol import codec
from protocol.errors import NovacronError
from protocol.records import Plain
from services.data.errors import (
    CheckpointDamagedError,
    CheckpointForeignError,
    CheckpointOwnerError,
    CheckpointTooLargeError,
)

# PostgreSQL's integer.
VERSION_MAX = 2**31 - 1
ENVELOPE, BARE = "envelope", "msgpack"


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveRequest:
    """Body of ``checkpoint.save``.

    Attributes:
        component: the caller's path or id.
        version: the component's own number of the state's format.
        state: any plain value.
        after: the generation that this one is to follow, so that a save which was on its way
            when its process died can't replace what the next process saved; None for whatever
            there is.
    """

    component: str
    version: int
    state: Plain
    after: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.version <= VERSION_MAX:
            raise ValueError(f"version is {self.version}; 0 to {VERSION_MAX}")
        if self.after is not None and self.after < 0:
            raise ValueError(f"after is {self.after}; at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveReply:
    """What ``checkpoint.save`` answers.

    Attributes:
        is_saved: False when ``after`` was not the newest generation; nothing was changed.
        generation: the newest one now.
    """

    is_saved: bool
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """Body of ``checkpoint.restore``; ``component`` is the caller's path or id."""

    component: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A generation that was not handed out, and why: an error's code and its sentence."""

    generation: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What ``checkpoint.restore`` answers.

    Attributes:
        version, state: as they were saved.
        created_s: when, Unix time of the database's clock.
        generation: which one it is.
        refused: newer ones that could not be used; the state is older than the last one saved.
    """

    version: int
    state: Plain
    created_s: float
    generation: int = 0
    refused: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCheckpoint:
    """One row, unverified."""

    generation: int
    version: int
    format: str
    data: bytes
    digest: bytes
    created_s: float


def check_owner(component: str, caller: str, *, free: frozenset[str]) -> None:
    """See to it that a component only reaches its own checkpoint.

    Args:
        component: whose checkpoint, a path or its last part.
        caller: path of the calling process, or ``operator/<name>``.
        free: callers that may reach every one; persons count as ``operator``.

    Raises:
        CheckpointOwnerError: it is another component's.
    """
    if {caller, caller.partition("/")[0]} & free:
        return
    if component not in (caller, component_id(caller)):
        raise CheckpointOwnerError(f"{caller} may not reach the checkpoint of {component}")


def component_id(component: str) -> str:
    """The name under which a component's checkpoint is kept: the last part of its path."""
    return component.rpartition("/")[2]


def pack(node_id: str, request: SaveRequest, *, bytes_max: int) -> tuple[bytes, bytes]:
    """The bytes to store, and their SHA-256.

    Raises:
        CheckpointTooLargeError: the state is over the limit.
        LocalProtocolError: it is no plain value.
    """
    size = len(codec.encode(request.state))
    if size > bytes_max:
        raise CheckpointTooLargeError(
            f"the state has {size} bytes; a checkpoint holds at most {bytes_max}",
            size_bytes=size,
        )
    data = codec.encode(
        {
            "node": node_id,
            "component": component_id(request.component),
            "version": request.version,
            "state": request.state,
        }
    )
    return data, hashlib.sha256(data).digest()


def unpack(stored: StoredCheckpoint, *, node_id: str, component: str) -> Plain:
    """The state of a row.

    Args:
        stored: the row.
        node_id: whose it must be.
        component: of which component.

    Raises:
        CheckpointDamagedError: the bytes are not those that were saved.
        CheckpointForeignError: they are another's, or in a format that we don't know.
    """
    if stored.format not in (ENVELOPE, BARE):
        raise CheckpointForeignError(
            f"its format is {stored.format!r:.40}, which this program does not know"
        )
    if hashlib.sha256(stored.data).digest() != stored.digest:
        raise CheckpointDamagedError("its SHA-256 is not the one it was saved with")
    try:
        value = codec.decode(stored.data)
    except NovacronError as exc:
        raise CheckpointDamagedError(f"it can't be decoded: {exc}") from exc
    if stored.format == BARE:
        return value
    if not isinstance(value, Mapping) or "state" not in value:
        raise CheckpointDamagedError("it is no checkpoint")
    expected = {"node": node_id, "component": component_id(component), "version": stored.version}
    for name, ours in expected.items():
        if (theirs := value.get(name)) != ours:
            raise CheckpointForeignError(f"it is of {name} {theirs!r:.80}, not {ours!r:.80}")
    return value["state"]
