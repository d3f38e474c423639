"""A checkpoint's bytes and who may reach them."""

from __future__ import annotations

import hashlib

import pytest

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire
from services.data import checkpoints
from services.data.checkpoints import SaveRequest
from services.data.errors import (
    CheckpointDamagedError,
    CheckpointOwnerError,
    CheckpointTooLargeError,
)


def test_state_comes_back_as_it_was() -> None:
    """Plain values survive, bytes among them."""
    state = {"a": [1, None, True, 2.5], "b": b"\x00\xff", "c": {"d": "ä"}}

    data, digest = checkpoints.encode_state(state, bytes_max=1000)

    assert checkpoints.decode_state(data, digest, "vm") == state
    assert digest == hashlib.sha256(data).digest()


def test_limit_is_inclusive() -> None:
    """A state of exactly the limit is kept, one byte more is not."""
    state = b"x" * 98  # msgpack adds two bytes

    data, _ = checkpoints.encode_state(state, bytes_max=100)

    assert len(data) == 100
    with pytest.raises(CheckpointTooLargeError, match="100 bytes; a checkpoint holds at most 99"):
        checkpoints.encode_state(state, bytes_max=99)


def test_damaged_bytes_are_never_handed_out() -> None:
    """One changed bit is an error."""
    data, digest = checkpoints.encode_state({"a": 1}, bytes_max=100)

    with pytest.raises(CheckpointDamagedError, match="vm"):
        checkpoints.decode_state(bytes([data[0] ^ 1]) + data[1:], digest, "vm")


@pytest.mark.parametrize("component", ["core/vm", "vm"])
def test_component_reaches_its_own_by_path_or_id(component: str) -> None:
    """Both names mean the same checkpoint."""
    checkpoints.check_owner(component, "core/vm", free=frozenset())

    assert checkpoints.component_id(component) == "vm"


@pytest.mark.parametrize("component", ["network", "core/network", "core", "other/vm", ""])
def test_component_does_not_reach_another_ones(component: str) -> None:
    """The caller's path is what its key proves."""
    with pytest.raises(CheckpointOwnerError):
        checkpoints.check_owner(component, "core/vm", free=frozenset({"operator"}))

    checkpoints.check_owner(component, "operator", free=frozenset({"operator"}))


@pytest.mark.parametrize("version", [-1, 2**31])
def test_version_fits_the_column(version: int) -> None:
    """A number that the table can't hold is refused before it gets there."""
    with pytest.raises(RemoteProtocolError, match="version"):
        from_wire(SaveRequest, {"component": "vm", "version": version, "state": 1})
