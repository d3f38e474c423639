"""One message on the wire: call, reply, failure, cast or event.

Wire shape, one ZeroMQ frame holding one msgpack array::

    [version, kind, id, name, timeout_ms, correlation, body]

    version      1
    kind         1 call · 2 reply · 3 failure · 4 cast
    id           chosen by the caller, repeated by reply and failure; 0 in a cast
    name         method of a call or cast; error code of a failure; "" in a reply
    timeout_ms   how long the caller waits, from sending; 0 in all other kinds
    correlation  follows one request through processes; "" when nobody asked
    body         plain value; a failure's is its sentence
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from protocol import codec
from protocol.errors import RemoteProtocolError
from protocol.records import Plain

VERSION = 1
NAME_LENGTH_MAX = 128
# A day: no call waits longer, and a wrong unit (µs for ms) is noticed.
TIMEOUT_MS_MAX = 86_400_000


class Kind(enum.IntEnum):
    """What an envelope is for."""

    CALL = 1
    REPLY = 2
    FAILURE = 3
    CAST = 4


_LENGTH = 7  # the version and the fields of an Envelope
_KINDS = {int(kind): kind for kind in Kind}


class Envelope(NamedTuple):
    """One message; see the module for the fields.

    A tuple and not a record: a frozen dataclass takes three times as long to make, and each
    message is made twice.
    """

    kind: Kind
    id: int
    name: str
    timeout_ms: int
    correlation: str
    body: Plain


def encode(envelope: Envelope) -> bytes:
    """Encode an envelope.

    Raises:
        LocalProtocolError: the body is not plain or too large.
    """
    return codec.encode((VERSION, *envelope))


def decode(data: bytes) -> Envelope:
    """Decode and check an envelope.

    Raises:
        RemoteProtocolError: not an envelope of this version.
    """
    fields = codec.decode(data)
    # A match statement says the same and takes six times as long; every message comes by here.
    if type(fields) is not list or len(fields) != _LENGTH:
        raise RemoteProtocolError("not an envelope")
    version, number_of_kind, number, name, timeout_ms, correlation, body = fields
    if not (
        type(version) is type(number_of_kind) is type(number) is type(timeout_ms) is int
        and type(name) is type(correlation) is str
    ):
        raise RemoteProtocolError("a field of the envelope has the wrong type")
    if version != VERSION:
        raise RemoteProtocolError(f"protocol version {version}; this is {VERSION}")
    if (known := _KINDS.get(number_of_kind)) is None:
        raise RemoteProtocolError(f"unknown kind of envelope {number_of_kind}")
    if not 0 <= timeout_ms <= TIMEOUT_MS_MAX or not 0 <= number < 1 << 63:
        raise RemoteProtocolError("id or timeout of the envelope is out of range")
    if len(name) > NAME_LENGTH_MAX or len(correlation) > NAME_LENGTH_MAX:
        raise RemoteProtocolError("a name in the envelope is too long")
    return Envelope(known, number, name, timeout_ms, correlation, body)
