"""A checkpoint's bytes and who may reach them."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from protocol import codec
from protocol.errors import RemoteProtocolError
from protocol.records import Plain, from_wire
from services.data.checkpoint_records import (
    BARE,
    SaveRequest,
    StoredCheckpoint,
    check_owner,
    pack,
    unpack,
)
from services.data.errors import (
    CheckpointDamagedError,
    CheckpointForeignError,
    CheckpointOwnerError,
    CheckpointTooLargeError,
)


def stored(state: Plain = "s", **changes: object) -> StoredCheckpoint:
    """A row as saving leaves it, with some columns changed."""
    request = SaveRequest(component="core/vm", version=2, state=state)
    data, digest = pack("n1", request, bytes_max=1000)
    row = StoredCheckpoint(
        generation=7, version=2, format="envelope", data=data, digest=digest, created_s=1.0
    )
    return dataclasses.replace(row, **changes)  # type: ignore[arg-type] # by the tests' names


def test_state_comes_back_as_it_was() -> None:
    """Plain values survive, bytes among them."""
    state = {"a": [1, None, True, 2.5], "b": b"\x00\xff", "c": {"d": "ä"}}

    assert unpack(stored(state), node_id="n1", component="vm") == state


def test_limit_is_inclusive_and_of_the_state_alone() -> None:
    """A state of just the limit passes, one byte more does not."""
    data = b"x" * 98  # two bytes of head

    def packed(state: bytes) -> None:
        pack("n1", SaveRequest(component="vm", version=1, state=state), bytes_max=100)

    packed(data)
    with pytest.raises(CheckpointTooLargeError, match="101 bytes; a checkpoint holds at most 100"):
        packed(data + b"x")


@pytest.mark.parametrize("cut", [0, 1, 10])
def test_torn_state_is_told(cut: int) -> None:
    """The hash is over all the bytes."""
    row = stored()

    with pytest.raises(CheckpointDamagedError, match="SHA-256"):
        unpack(dataclasses.replace(row, data=row.data[:cut]), node_id="n1", component="vm")


@pytest.mark.parametrize(
    ("changes", "node_id", "component", "reason"),
    [
        ({}, "n2", "vm", "it is of node 'n1', not 'n2'"),
        ({}, "n1", "network", "it is of component 'vm', not 'network'"),
        ({"version": 3}, "n1", "vm", "it is of version 2, not 3"),
        ({"format": "pickle"}, "n1", "vm", "format is 'pickle'"),
    ],
)
def test_foreign_record_is_told_with_the_reason(
    changes: dict[str, object], node_id: str, component: str, reason: str
) -> None:
    """Whole, and yet not what was asked for."""
    with pytest.raises(CheckpointForeignError, match=reason):
        unpack(stored(**changes), node_id=node_id, component=component)


@pytest.mark.parametrize("data", [b"\xc1", b"", codec.encode([1]), codec.encode({"node": "n1"})])
def test_bytes_that_are_no_checkpoint_are_damaged(data: bytes) -> None:
    """With a hash that is right: whoever wrote them computed it."""
    row = stored(data=data, digest=hashlib.sha256(data).digest())

    with pytest.raises(CheckpointDamagedError):
        unpack(row, node_id="n1", component="vm")


def test_bare_state_of_an_earlier_program_is_read() -> None:
    """It has a hash and no names."""
    data = codec.encode([1, 2])
    row = stored(format=BARE, data=data, digest=hashlib.sha256(data).digest())

    assert unpack(row, node_id="n1", component="vm") == [1, 2]


@pytest.mark.parametrize(
    ("component", "caller"),
    [
        ("core/vm", "core/vm"),
        ("vm", "core/vm"),
        ("vm", "operator"),
        ("vm", "operator/ada"),
        ("vm", "novacron"),
    ],
)
def test_owner_and_free_callers_may(component: str, caller: str) -> None:
    """By path or id; operators and the root may reach every one."""
    check_owner(component, caller, free=frozenset({"operator", "novacron"}))


@pytest.mark.parametrize("caller", ["core/network", "vm/core", "operators/ada", "x/operator"])
def test_others_may_not(caller: str) -> None:
    """Neither another component nor a name that looks like a free one."""
    with pytest.raises(CheckpointOwnerError, match="may not reach the checkpoint of vm"):
        check_owner("vm", caller, free=frozenset({"operator"}))


@pytest.mark.parametrize(
    "change", [{"version": -1}, {"version": 2**31}, {"after": -1}, {"after": "1"}]
)
def test_numbers_are_checked(change: dict[str, Plain]) -> None:
    """Before PostgreSQL would refuse them."""
    with pytest.raises(RemoteProtocolError):
        from_wire(SaveRequest, {"component": "vm", "version": 1, "state": None, **change})
