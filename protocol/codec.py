"""Plain values to bytes and back: msgpack with every length and the nesting bounded."""

from __future__ import annotations

from typing import Any

import msgpack

from protocol.errors import LocalProtocolError, RemoteProtocolError

# A whole node's status is some 10 KiB; a megabyte leaves room and stops a flood.
MESSAGE_BYTES_MAX = 1 << 20
# Deeper than any of our records; msgpack's own limit lies where the C stack ends.
DEPTH_MAX = 16
CONTAINER_LENGTH_MAX = 16_384
_CONTAINERS = frozenset((list, dict))


def encode(value: Any) -> bytes:  # Any: every plain value
    """Encode one plain value.

    Raises:
        LocalProtocolError: the value is not plain, or its encoding is over the limit.
    """
    try:
        data: bytes = msgpack.packb(value, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as exc:
        raise LocalProtocolError(f"can't be encoded: {exc}") from exc
    if len(data) > MESSAGE_BYTES_MAX:
        raise LocalProtocolError(
            f"message of {len(data)} bytes is over the limit of {MESSAGE_BYTES_MAX}"
        )
    return data


def decode(data: bytes) -> Any:  # Any: every plain value
    """Decode one plain value, within the limits of this module.

    Raises:
        RemoteProtocolError: not one msgpack value, too large, too deep, or with duplicate keys.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        raise RemoteProtocolError(
            f"message of {len(data)} bytes is over the limit of {MESSAGE_BYTES_MAX}"
        )
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_unique,
            max_array_len=CONTAINER_LENGTH_MAX,
            max_map_len=CONTAINER_LENGTH_MAX,
            max_ext_len=0,
        )
    # msgpack raises six unrelated classes for bad input; this is the one place that meets them.
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as exc:
        raise RemoteProtocolError(f"not a valid message: {type(exc).__name__}: {exc}") from exc
    _check_depth(value, DEPTH_MAX)
    return value


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a map repeats a key")
    return found


def _check_depth(value: Any, allowance: int) -> None:
    if type(value) in _CONTAINERS:
        if allowance == 0:
            raise RemoteProtocolError(f"message nests deeper than {DEPTH_MAX}")
        for item in value.values() if type(value) is dict else value:
            if type(item) in _CONTAINERS:
                _check_depth(item, allowance - 1)
