"""Tells that somebody else changed our table: the kernel's own notifications of nftables.

Source: linux/netfilter/nfnetlink.h and nf_tables.h; in each message but the generation's, attribute
1 is the table's name.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Iterator

from services.network.errors import NetlinkFailedError
from services.network.segments.ruleset import TABLE

_NETLINK_NETFILTER = 12
_SOL_NETLINK = 270
_ADD_MEMBERSHIP = 1
_GROUP_NFTABLES = 7
# A change of a thousand interfaces makes some megabytes; what is lost only means: look.
_BUFFER_BYTES = 4 << 20
_READ_BYTES = 1 << 16
_READS_MAX = 4096
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_FAMILY_HEADER_BYTES = 4


class TableChanges:
    """Follows changes of our table by others. Use it in one loop; then ``close``.

    Args:
        table: its name.

    Raises:
        NetlinkFailedError: the kernel does not let this process listen.
    """

    def __init__(self, *, table: str = TABLE) -> None:
        self._table = table
        self.changed = asyncio.Event()
        self._is_ours = False
        self._has_changed = True  # nobody has looked yet
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER
        )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        except OSError as exc:
            self._socket.close()
            hint = ": the process lacks CAP_NET_ADMIN" if exc.errno == errno.EPERM else ""
            raise NetlinkFailedError(
                f"can't follow changes of nftables: {exc.strerror}{hint}"
            ) from exc
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def has_changed(self) -> bool:
        """Tell whether the table may differ from what was last looked at."""
        self._read()
        return self._has_changed

    def forget(self) -> None:
        """The table is about to be looked at."""
        self._read()
        self._has_changed = False
        self.changed.clear()

    @contextlib.contextmanager
    def ours(self) -> Iterator[None]:
        """What happens within is our own doing."""
        self._read()
        self._is_ours = True
        try:
            yield
            self._read()  # the kernel has told of a change before nft ends
        finally:
            self._is_ours = False

    def close(self) -> None:
        """Stop following."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        is_told = False
        for _ in range(_READS_MAX):
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise
                is_told = True  # some were lost
                continue
            is_told = is_told or concerns_table(data, self._table)
        if is_told and not self._is_ours:
            self._has_changed = True
            self.changed.set()


def concerns_table(data: bytes, table: str = TABLE) -> bool:
    """Tell whether one of the messages is about a table."""
    name = table.encode() + b"\0"
    start = 0
    while start + _HEADER.size <= len(data):
        length = _HEADER.unpack_from(data, start)[0]
        if length < _HEADER.size:
            return True  # not understood: look
        place = start + _HEADER.size + _FAMILY_HEADER_BYTES
        if place + _ATTRIBUTE.size <= start + length <= len(data):
            size, kind = _ATTRIBUTE.unpack_from(data, place)
            value = data[place + _ATTRIBUTE.size : place + size]
            if kind & 0x3FFF == 1 and value == name:
                return True
        start += (length + 3) & ~3
    return False
