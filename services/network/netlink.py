"""The kernel's links over rtnetlink: read, change, and be told of changes. Adapter for pyroute2.

Lives in one asyncio loop. Requests and notifications have a socket each: a dump on a socket that
also gets notifications can be interrupted by them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import AsyncGenerator, Iterator
from typing import Any, assert_never

from services.network.errors import MissingCapabilityError, NetlinkFailedError
from services.network.model import Link
from services.network.plan import AddAddress, CreateBridge, MarkBridge, RaiseBridge, Step
from services.network.pyroute2_core import enter_package

enter_package()
from pyroute2.iproute.linux import AsyncIPRoute  # noqa: E402 - the package must be entered first
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError  # noqa: E402 - same
from pyroute2.netlink.rtnl import (  # noqa: E402 - same
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_LINK,
)

# The kernel answers a dump of thousands of links in milliseconds; this only stops a wedged one.
REQUEST_TIMEOUT_S = 5.0
# A dump that changes keep interrupting is not worth more rounds; the next change retries anyway.
DUMP_ATTEMPTS_MAX = 5
_IFF_UP = 1
# A guest's start makes some ten kilobytes of notifications; the rest is for times without a turn.
_CHANGES_BYTES_MAX = 1 << 20
# Notifications that are taken in one go, so that a storm of them does not stop the loop.
_BATCH_MAX = 256
_GROUPS = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR


class Netlink:
    """Requests about links on one socket. Use it in the loop that created it; then ``close``."""

    def __init__(self) -> None:
        with _translated("open a netlink socket"):
            self._socket: Any = AsyncIPRoute()  # Any: pyroute2 has no types

    async def read_links(self) -> tuple[Link, ...]:
        """All links with their addresses, by index.

        Raises:
            NetlinkFailedError: the kernel refused, or changes kept interrupting the answer.
        """
        for _ in range(DUMP_ATTEMPTS_MAX):
            try:
                with _translated("read links"):
                    async with asyncio.timeout(REQUEST_TIMEOUT_S):
                        return await self._read_links_once()
            except NetlinkDumpInterrupted:
                continue
        raise NetlinkFailedError(f"links kept changing during {DUMP_ATTEMPTS_MAX} attempts to read")

    async def apply(self, step: Step) -> None:
        """Carry one step out; a step that is already done is no error.

        Raises:
            MissingCapabilityError: the process lacks CAP_NET_ADMIN.
            NetlinkFailedError: the kernel refused otherwise.
        """
        with _translated(f"{type(step).__name__} {step.name}"):
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await self._apply(step)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    async def _read_links_once(self) -> tuple[Link, ...]:
        addresses: dict[int, list[str]] = {}
        async for message in await self._socket.addr("dump"):
            # On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL our own.
            own = message.get("local") or message.get("address")
            addresses.setdefault(message["index"], []).append(f"{own}/{message['prefixlen']}")
        links = [
            _link(message, addresses.get(message["index"], ()))
            async for message in await self._socket.link("dump")
        ]
        return tuple(sorted(links, key=lambda link: link.index))

    async def _apply(self, step: Step) -> None:
        match step:
            case CreateBridge(name, mac):
                await self._ensure(
                    self._socket.link("add", ifname=name, kind="bridge", address=mac)
                )
            case MarkBridge(name, alias):
                await self._socket.link("set", index=await self._index(name), ifalias=alias)
            case RaiseBridge(name):
                await self._socket.link("set", index=await self._index(name), state="up")
            case AddAddress(name, address):
                interface = ipaddress.ip_interface(address)
                await self._ensure(
                    self._socket.addr(
                        "add",
                        index=await self._index(name),
                        address=str(interface.ip),
                        prefixlen=interface.network.prefixlen,
                    )
                )
            case _:
                assert_never(step)

    async def _ensure(self, request: Any) -> None:  # Any: pyroute2's awaitable
        try:
            await request
        except NetlinkError as exc:
            if exc.code != errno.EEXIST:
                raise

    async def _index(self, name: str) -> int:
        found = await self._socket.link_lookup(ifname=name)
        if not found:
            raise NetlinkFailedError(f"{name} vanished while it was being set up", name=name)
        return int(found[0])


class LinkChanges:
    """Tells that links or addresses changed, on a socket of its own; not what changed.

    Notifications can be lost (the socket's buffer is bounded), so they are only ever a reason to
    read anew. As nobody looks into them, a plain socket takes them: pyroute2's would parse each.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        with _translated("open a netlink socket"):
            self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)

    def subscribe(self) -> None:
        """Begin to listen; changes from here on are told.

        Raises:
            NetlinkFailedError: the kernel refused.
        """
        with _translated("subscribe to link changes"):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CHANGES_BYTES_MAX)
            self._socket.bind((0, _GROUPS))

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yield for each batch of changes, for ever.

        Raises:
            NetlinkFailedError: notifications were lost; close, subscribe anew and read all.
        """
        loop = asyncio.get_running_loop()
        with _translated("follow link changes"):
            while True:
                await loop.sock_recv(self._socket, 1)  # of each message the rest is dropped
                with contextlib.suppress(BlockingIOError):
                    for _ in range(_BATCH_MAX):
                        self._socket.recv(1)
                yield

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except NetlinkDumpInterrupted:
        raise
    except NetlinkError as exc:
        if exc.code in (errno.EPERM, errno.EACCES):
            raise MissingCapabilityError(
                "the process lacks CAP_NET_ADMIN, so the host's links stay as they are",
                doing=doing,
            ) from exc
        raise NetlinkFailedError(
            f"could not {doing}: {errno.errorcode.get(exc.code, exc.code)}", errno=exc.code
        ) from exc
    except TimeoutError as exc:
        raise NetlinkFailedError(f"could not {doing} within {REQUEST_TIMEOUT_S} s") from exc
    except OSError as exc:
        raise NetlinkFailedError(f"could not {doing}: {exc}", errno=exc.errno) from exc


def _link(message: Any, addresses: list[str] | tuple[str, ...]) -> Link:  # Any: pyroute2's message
    return Link(
        name=str(message.get("ifname")),
        index=int(message["index"]),
        kind=message.get(("linkinfo", "kind")) or "",
        is_up=bool(message["flags"] & _IFF_UP),
        operstate=str(message.get("operstate") or "unknown").lower(),
        mac=message.get("address") or "",
        mtu=int(message.get("mtu") or 0),
        alias=message.get("ifalias") or "",
        bridge_index=message.get("master"),
        addresses=tuple(sorted(addresses)),
    )
