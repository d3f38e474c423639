"""Frozen dataclasses to plain wire values and back, with every type checked on the way in.

A record is a frozen dataclass whose fields are ``None``, ``bool``, ``int``, ``float``, ``str``,
``bytes``, an ``Enum`` with string or integer values, another record, ``tuple[X, ...]``,
``dict[str, X]``, a union of these with ``None``, or ``Plain`` (any wire value).

Wire shape: a record is a map from field name to value; a field that equals its default is left
out. Unknown fields are refused: a peer of another version must not be half understood.
"""

from __future__ import annotations

import enum
import functools
import operator
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from protocol.dataclass import fields_of, is_dataclass
from protocol.errors import LocalProtocolError, RemoteProtocolError

R = TypeVar("R")

# What msgpack and JSON can carry. The checker can't express the recursion usefully.
Plain = Any

_Decoder = Callable[[object, str], Any]
_Encoder = Callable[[Any], Any]
_AS_THEY_ARE: frozenset[type] = frozenset((type(None), bool, int, float, str, bytes))
_SCALARS: tuple[type, ...] = (bool, int, str, bytes)


def to_wire(record: object) -> Plain:
    """Turn a record into maps, lists and scalars.

    Args:
        record: a record, or any value that a record may hold.

    Raises:
        LocalProtocolError: the value has a type that no record may hold.
    """
    kind = type(record)
    if kind in _AS_THEY_ARE:
        return record
    return _encoder(_hashable(kind))(record)


def from_wire(cls: type[R], value: object) -> R:
    """Build a record of class ``cls`` from wire values.

    Raises:
        RemoteProtocolError: a field is missing, unknown or of the wrong type; the message names
            the field by its dotted path.
    """
    return typing.cast("R", _decoder(_hashable(cls))(value, cls.__name__))


@functools.cache
def _encoder(kind: Any) -> _Encoder:  # Any: as for _hashable
    if issubclass(kind, enum.Enum):  # first: an IntEnum is an int
        return operator.attrgetter("value")
    if issubclass(kind, (int, float, str, bytes)):
        return lambda value: value
    if issubclass(kind, (tuple, list)):
        return lambda items: [
            item if type(item) in _AS_THEY_ARE else to_wire(item) for item in items
        ]
    if issubclass(kind, Mapping):
        return lambda items: {
            key: value if type(value) in _AS_THEY_ARE else to_wire(value)
            for key, value in items.items()
        }
    if is_dataclass(kind):
        return _record_encoder(kind)
    raise LocalProtocolError(f"a record can't hold a {kind.__name__}")


def _record_encoder(cls: type) -> _Encoder:
    """Encode a record in one pass: a status of some dozens is asked for often."""
    defaults = _defaults(cls)
    names = [name for name, _default in defaults]
    if not names:
        return lambda _record: {}
    get: Any = operator.attrgetter(*names)  # one name gives a value, several give a tuple

    def encode(record: object) -> dict[str, Plain]:
        values = get(record) if len(names) > 1 else (get(record),)
        found = {}
        for (name, default), value in zip(defaults, values, strict=True):
            if value is not default and value != default:
                found[name] = value if type(value) in _AS_THEY_ARE else to_wire(value)
        return found

    return encode


def _hashable(cls: type) -> Any:  # Any: the checker does not see that a class has a hash
    return cls


@functools.cache
def _defaults(cls: type) -> tuple[tuple[str, object], ...]:
    return tuple((field.name, field.make_default()) for field in fields_of(cls))


@functools.cache
def _decoder(kind: Any) -> _Decoder:  # Any: type expressions have no common static type
    origin = typing.get_origin(kind)
    if kind is Any or kind is object:
        return lambda value, _where: value
    if kind is float:
        return _decode_float
    if kind in _SCALARS:
        return functools.partial(_decode_scalar, kind)
    if origin is tuple:
        return functools.partial(_decode_tuple, _decoder(typing.get_args(kind)[0]))
    if origin in (dict, Mapping) or origin is typing.get_origin(Mapping[str, int]):
        return functools.partial(_decode_map, _decoder(typing.get_args(kind)[1]))
    if origin in (typing.Union, types.UnionType):
        return _union_decoder(typing.get_args(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return functools.partial(_decode_enum, kind)
    if is_dataclass(kind):
        return _record_decoder(typing.cast("type", kind))
    if hasattr(kind, "__supertype__"):  # NewType
        return _decoder(kind.__supertype__)
    raise LocalProtocolError(f"a record can't have a field of type {kind!r}")


def _decode_float(value: object, where: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise _mismatch(where, "a number", value)


def _decode_scalar(kind: type, value: object, where: str) -> object:
    # type() and not isinstance: True is an int to Python and must not be one on the wire.
    if type(value) is kind:
        return value
    raise _mismatch(where, f"a value of type {kind.__name__}", value)


def _decode_tuple(decode: _Decoder, value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, (list, tuple)):
        raise _mismatch(where, "a list", value)
    return tuple(decode(item, f"{where}[{index}]") for index, item in enumerate(value))


def _decode_map(decode: _Decoder, value: object, where: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise _mismatch(where, "a map", value)
    for key in value:
        if not isinstance(key, str):
            raise _mismatch(where, "text keys", key)
    return {key: decode(item, f"{where}.{key}") for key, item in value.items()}


def _decode_enum(kind: type[enum.Enum], value: object, where: str) -> enum.Enum:
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(str(member.value) for member in kind)
        raise _mismatch(where, f"one of {choices}", value) from None


def _union_decoder(members: tuple[object, ...]) -> _Decoder:
    others = [member for member in members if member is not type(None)]
    if len(others) != 1 or len(others) == len(members):
        raise LocalProtocolError("a record's union is one type or None")
    decode = _decoder(others[0])
    return lambda value, where: None if value is None else decode(value, where)


def _record_decoder(cls: type) -> _Decoder:
    fields = fields_of(cls)
    decoders: dict[str, _Decoder] = {}
    required = frozenset(field.name for field in fields if field.is_required)

    def decode(value: object, where: str) -> object:
        if not decoders:  # at first use, so that a record may nest records of its own class
            hints = typing.get_type_hints(cls)
            decoders.update((field.name, _decoder(hints[field.name])) for field in fields)
        if not isinstance(value, Mapping):
            raise _mismatch(where, "a map", value)
        if missing := required - value.keys():
            raise RemoteProtocolError(f"{where} lacks {', '.join(sorted(missing))}")
        arguments = {}
        for name, item in value.items():
            if (decode_field := decoders.get(name)) is None:
                raise RemoteProtocolError(f"{where} has an unknown field {name!r:.60}")
            arguments[name] = decode_field(item, f"{where}.{name}")
        try:
            return cls(**arguments)
        except ValueError as exc:
            raise RemoteProtocolError(f"{where}: {exc}") from exc

    return decode


def _mismatch(where: str, expected: str, value: object) -> RemoteProtocolError:
    return RemoteProtocolError(f"{where}: expected {expected}, got {value!r:.60}")
