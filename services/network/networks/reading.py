"""Reads what the host has: links with their details, and default gateways. Lives in one loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace

from services.network.errors import NetlinkFailedError
from services.network.netlink import (
    DUMP_ATTEMPTS_MAX,
    READ_BYTES,
    REQUEST_TIMEOUT_S,
    list_links,
    open_socket,
    translated,
)
from services.network.networks.listing import (
    DefaultRoute,
    LinkListing,
    gateways_in,
    remotes_in,
    remotes_request,
    routes_over,
    routes_request,
)
from services.network.networks.observed import (
    Marks,
    Observed,
    SeenLink,
    SeenRoute,
    observed,
)
from services.network.rtnetlink import check, messages

_DONE, _ERROR_MESSAGE = 3, 2
_DUMP_INTERRUPTED = 0x10
Message = tuple[int, int, int, memoryview]


async def read_host(marks: Marks, *, routes_over: frozenset[str] | None = None) -> Observed:
    """All links, and where VXLAN links of this node send to.

    Args:
        marks: tells which links are this node's.
        routes_over: names of links; the routes over them and over this node's are read too.

    Raises:
        NetlinkFailedError: the kernel refused, or changes kept interrupting the answer.
    """
    listing = await list_links(LinkListing)
    links = tuple([await _with_remotes(seen, marks) for seen in sorted(listing.seen, key=_index)])
    if routes_over is None:
        return observed(links)
    asked = {seen.index for seen in links if seen.name in routes_over or marks.is_ours(seen.link)}
    return observed(links, await _read_routes(asked) if asked else ())


async def read_gateways() -> tuple[DefaultRoute, ...]:
    """The gateways of all default routes in the main table.

    Raises:
        NetlinkFailedError: as for ``read_host``.
    """
    found: dict[DefaultRoute, None] = {}

    def take(batch: list[Message]) -> None:
        found.update(dict.fromkeys(gateways_in(batch)))

    for family in (socket.AF_INET, socket.AF_INET6):
        await _dump(routes_request(family), "read routes", take)
    return tuple(found)


async def _read_routes(indexes: set[int]) -> tuple[SeenRoute, ...]:
    found: dict[SeenRoute, None] = {}

    def take(batch: list[Message]) -> None:
        found.update(dict.fromkeys(routes_over(batch, indexes)))

    for family in (socket.AF_INET, socket.AF_INET6):
        await _dump(routes_request(family), "read routes", take)
    return tuple(found)


async def _with_remotes(seen: SeenLink, marks: Marks) -> SeenLink:
    if seen.vxlan is None or seen.vxlan.group or not marks.is_ours(seen.link):
        return seen
    remotes: dict[str, None] = {}

    def take(batch: list[Message]) -> None:
        remotes.update(dict.fromkeys(remotes_in(batch, seen.index)))

    await _dump(remotes_request(seen.index), "read a VXLAN link's remotes", take)
    return replace(seen, remotes=tuple(remotes))


async def _dump(request: bytes, doing: str, take: Callable[[list[Message]], None]) -> None:
    """Hand over the messages of one list as they come; again where it was interrupted."""
    loop = asyncio.get_running_loop()
    for _ in range(DUMP_ATTEMPTS_MAX):
        is_whole, is_done = True, False
        with translated(doing), open_socket() as sock:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                sock.sendto(request, (0, 0))
                while not is_done:
                    batch = list(messages(await loop.sock_recv(sock, READ_BYTES)))
                    for kind, flags, _sequence, payload in batch:
                        is_whole = is_whole and not flags & _DUMP_INTERRUPTED
                        if kind in (_DONE, _ERROR_MESSAGE):
                            check(payload)
                            is_done = True
                    take(batch)
                    await asyncio.sleep(0)
        if is_whole:
            return
    raise NetlinkFailedError(f"could not {doing}: it kept changing")


def _index(seen: SeenLink) -> int:
    return seen.index
