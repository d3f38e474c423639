"""The kernel's links over rtnetlink: read, change, and be told of changes. Lives in one loop.

Each reading has a socket of its own: a list on a socket that also gets notifications can be
interrupted by them, and two lists at a time need not be told apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from services.network.errors import MissingCapabilityError, NetlinkFailedError
from services.network.model import Link
from services.network.plan import Step
from services.network.rtnetlink import REQUESTS, DumpInterruptedError, Listing

if TYPE_CHECKING:
    from services.network.route_socket import RouteSocket

# The kernel answers a dump of thousands of links in milliseconds; this only stops a wedged one.
REQUEST_TIMEOUT_S = 5.0
# A dump that changes keep interrupting is not worth more rounds; the next change retries anyway.
DUMP_ATTEMPTS_MAX = 5
NO_CAPABILITY = "the process lacks CAP_NET_ADMIN, so the host's links stay as they are"
# The kernel gives at most 32 KiB at a time, and a single link far less.
READ_BYTES = 1 << 16
# A guest's start makes some ten kilobytes of notifications; the rest is for times without a turn.
_CHANGES_BYTES_MAX = 1 << 20
# Notifications that are taken in one go, so that a storm of them does not stop the loop.
_BATCH_MAX = 256
_GROUPS = 0x001 | 0x010 | 0x100  # RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR
_CAP_NET_ADMIN = 12
L = TypeVar("L", bound=Listing)


class Netlink:
    """Requests about links. Use it in one loop; then ``close``."""

    def __init__(self) -> None:
        self._changing: RouteSocket | None = None

    async def read_links(self) -> tuple[Link, ...]:
        """All links with their addresses, by index.

        Raises:
            NetlinkFailedError: the kernel refused, or changes kept interrupting the answer.
        """
        return tuple(sorted((await list_links(Listing)).links, key=lambda link: link.index))

    async def apply(self, step: Step) -> None:
        """Carry one step out; a step that is already done is no error.

        Raises:
            MissingCapabilityError: the process lacks CAP_NET_ADMIN.
            NetlinkFailedError: the kernel refused otherwise.
        """
        if not _may_change_links():
            raise MissingCapabilityError(NO_CAPABILITY, doing=type(step).__name__)
        # Imported here: most starts find everything as it should be, and the library is large.
        from services.network.route_socket import RouteSocket

        with translated(f"{type(step).__name__} {step.name}"):
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                self._changing = self._changing or RouteSocket()
                await self._changing.apply(step)

    def close(self) -> None:
        """Close what is open."""
        if self._changing is not None:
            self._changing.close()
            self._changing = None


class LinkChanges:
    """Tells that links or addresses changed, on a socket of its own; not what changed.

    Notifications can be lost (the socket's buffer is bounded), so they are only ever a reason to
    read anew, and nobody looks into them.
    """

    def __init__(self) -> None:
        with translated("open a netlink socket"):
            self._socket = open_socket()

    def subscribe(self) -> None:
        """Begin to listen; changes from here on are told.

        Raises:
            NetlinkFailedError: the kernel refused.
        """
        with translated("subscribe to link changes"):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CHANGES_BYTES_MAX)
            self._socket.bind((0, _GROUPS))

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yield for each batch of changes, for ever.

        Raises:
            NetlinkFailedError: notifications were lost; close, subscribe anew and read all.
        """
        loop = asyncio.get_running_loop()
        with translated("follow link changes"):
            while True:
                await loop.sock_recv(self._socket, 1)  # of each message the rest is dropped
                with contextlib.suppress(BlockingIOError):
                    for _ in range(_BATCH_MAX):
                        self._socket.recv(1)
                yield

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def open_socket() -> socket.socket:
    """A route socket that never blocks."""
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    return socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)


async def list_links(make: Callable[[], L]) -> L:
    """All links and addresses in a new listing.

    Raises:
        NetlinkFailedError: the kernel refused, or changes kept interrupting the answer.
    """
    for _ in range(DUMP_ATTEMPTS_MAX):
        try:
            with translated("read links"):
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    return await _list_once(make())
        except DumpInterruptedError:
            continue
    raise NetlinkFailedError(f"links kept changing during {DUMP_ATTEMPTS_MAX} attempts to read")


async def _list_once(listing: L) -> L:
    loop = asyncio.get_running_loop()
    with open_socket() as sock:
        for request in REQUESTS:
            sock.sendto(request, (0, 0))
            while True:
                if listing.take(await loop.sock_recv(sock, READ_BYTES)):
                    break
                await asyncio.sleep(0)  # thousands of links take a while
    return listing


def _may_change_links() -> bool:
    """Whether the process has CAP_NET_ADMIN, as far as its own namespace goes."""
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("\nCapEff:")[2].split(maxsplit=1)[0], 16)
    return bool(effective >> _CAP_NET_ADMIN & 1)


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise what the system says as NetlinkFailedError, with what was being done."""
    try:
        yield
    except TimeoutError as exc:
        raise NetlinkFailedError(f"could not {doing} within {REQUEST_TIMEOUT_S} s") from exc
    except OSError as exc:
        raise NetlinkFailedError(f"could not {doing}: {exc}", errno=exc.errno) from exc
