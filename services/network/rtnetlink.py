"""The part of rtnetlink that lists links and addresses: requests, and what the answers say. Pure.

An answer is a row of messages, each a header and, aligned to 4 bytes, attributes::

    nlmsghdr     length u32, type u16, flags u16, sequence u32, port u32
    ifinfomsg    family u8, -, type u16, index i32, flags u32, change u32     of a link
    ifaddrmsg    family u8, prefix length u8, flags u8, scope u8, index u32   of an address
    rtattr       length u16, type u16, value

pyroute2 reads the same, and takes a millisecond per link for it, all attributes included, and 5 MiB
of memory. A host with hundreds of guests lists its links whenever one of them changes.

Source: rtnetlink(7), netlink(7), linux/if_link.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from services.network.errors import NetlinkFailedError
from services.network.model import Link

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")
_ERROR = struct.Struct("=i")

_ERROR_MESSAGE, _DONE = 2, 3
_NEW_LINK, _GET_LINK, _NEW_ADDRESS, _GET_ADDRESS = 16, 18, 20, 22
_DUMP_REQUEST = 0x001 | 0x300  # NLM_F_REQUEST | NLM_F_DUMP
_DUMP_INTERRUPTED = 0x10
_TYPE_MASK = 0x3FFF  # without the flags for nested and for network byte order
_IFF_UP = 1

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_EXT_MASK = 16, 18, 20, 29
_IFLA_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_SKIP_STATISTICS = 1 << 3
_OPERATIONAL = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")
_FAMILIES = (socket.AF_INET, socket.AF_INET6)

# In their order: the addresses have to be known when the links come.
REQUESTS = (
    _HEADER.pack(_HEADER.size + _ADDRESS.size, _GET_ADDRESS, _DUMP_REQUEST, 1, 0)
    + _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0),
    _HEADER.pack(_HEADER.size + _LINK.size + 8, _GET_LINK, _DUMP_REQUEST, 2, 0)
    + _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    + _ATTRIBUTE.pack(8, _IFLA_EXT_MASK)
    + _U32.pack(_SKIP_STATISTICS),
)


class DumpInterruptedError(NetlinkFailedError):
    """Something changed while it was listed, so the list may be wrong; ask again."""


@dataclass(slots=True)
class Listing:
    """Takes in the answers to ``REQUESTS``, one after the other.

    Attributes:
        links: those that came so far.
        addresses: ``10.20.0.1/24`` and the like by the link's index.
    """

    links: list[Link] = field(default_factory=list)
    addresses: dict[int, list[str]] = field(default_factory=dict)

    def take(self, data: bytes) -> bool:
        """Take in what one read gave; True when the answer is complete.

        Raises:
            DumpInterruptedError: see there.
            NetlinkFailedError: the kernel refused the request, or the answer is malformed.
        """
        try:
            return any(self._take(*message) for message in messages(data))
        except (struct.error, ValueError, IndexError) as exc:
            raise NetlinkFailedError(f"the kernel's answer is malformed: {exc}") from exc

    def note(
        self, link: Link, found: Mapping[int, memoryview], details: Mapping[int, memoryview]
    ) -> None:
        """Hook for who needs more of a link: its attributes, and those of its kind."""

    def _take(self, kind: int, flags: int, _sequence: int, payload: memoryview) -> bool:
        if flags & _DUMP_INTERRUPTED:
            raise DumpInterruptedError("links changed while they were listed")
        if kind in (_DONE, _ERROR_MESSAGE):
            check(payload)
            return True
        if kind == _NEW_ADDRESS:
            self._take_address(payload)
        elif kind == _NEW_LINK:
            self._take_link(payload)
        return False

    def _take_address(self, payload: memoryview) -> None:
        family, prefix_length, _flags, _scope, index = _ADDRESS.unpack_from(payload)
        if family not in _FAMILIES:
            return
        found = attributes(payload[_ADDRESS.size :])
        # On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL our own.
        own = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
        if own is not None:
            text = f"{socket.inet_ntop(family, own)}/{prefix_length}"
            self.addresses.setdefault(index, []).append(text)

    def _take_link(self, payload: memoryview) -> None:
        _family, _kind, index, flags, _change = _LINK.unpack_from(payload)
        found = attributes(payload[_LINK.size :])
        state = found.get(_IFLA_OPERSTATE, b"\0")[0]
        details = attributes(found.get(_IFLA_LINKINFO, memoryview(b"")))
        link = Link(
            name=_text(found, _IFLA_IFNAME),
            index=index,
            kind=_text(details, _IFLA_INFO_KIND),
            is_up=bool(flags & _IFF_UP),
            operstate=_OPERATIONAL[state] if state < len(_OPERATIONAL) else "unknown",
            mac=found[_IFLA_ADDRESS].hex(":") if found.get(_IFLA_ADDRESS) else "",
            mtu=number(found, _IFLA_MTU) or 0,
            alias=_text(found, _IFLA_IFALIAS),
            bridge_index=number(found, _IFLA_MASTER),
            addresses=tuple(sorted(self.addresses.get(index, ()))),
        )
        self.links.append(link)
        self.note(link, found, details)


def messages(data: bytes) -> Iterator[tuple[int, int, int, memoryview]]:
    """The messages of what one read gave: type, flags, sequence, and what follows the header.

    Raises:
        NetlinkFailedError: it is cut off.
    """
    view, start = memoryview(data), 0
    while start + _HEADER.size <= len(view):
        length, kind, flags, sequence, _port = _HEADER.unpack_from(view, start)
        if not _HEADER.size <= length <= len(view) - start:
            raise NetlinkFailedError("the kernel's answer is cut off")
        yield kind, flags, sequence, view[start + _HEADER.size : start + length]
        start += (length + 3) & ~3


def check(payload: memoryview) -> None:
    """Look at what ends an answer: a negative error number or 0.

    Raises:
        NetlinkFailedError: the kernel refused; ``fields`` have its ``errno``.
    """
    code = -_ERROR.unpack_from(payload)[0] if len(payload) >= _ERROR.size else 0
    if code:
        name = errno.errorcode.get(code, code)
        raise NetlinkFailedError(f"could not read links: {name}", errno=code)


def attributes(view: memoryview) -> dict[int, memoryview]:
    """The values of a row of attributes, by type without its flags.

    Raises:
        NetlinkFailedError: one is cut off.
    """
    # A listing of a thousand links has sixty thousand of them.
    found: dict[int, memoryview] = {}
    start, end, unpack, size = 0, len(view), _ATTRIBUTE.unpack_from, _ATTRIBUTE.size
    while start + size <= end:
        length, kind = unpack(view, start)
        if not size <= length <= end - start:
            raise NetlinkFailedError("an attribute in the kernel's answer is cut off")
        found[kind & _TYPE_MASK] = view[start + size : start + length]
        start += (length + 3) & ~3
    return found


def _text(found: Mapping[int, memoryview], kind: int) -> str:
    return bytes(found.get(kind, b"")).rstrip(b"\0").decode(errors="replace")


def number(found: Mapping[int, memoryview], kind: int) -> int | None:
    """An attribute that is a 32-bit number; None where it is missing."""
    value = found.get(kind)
    return None if value is None else int(_U32.unpack_from(value)[0])
