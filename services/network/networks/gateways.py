"""The host's own connectivity: whether its default gateways answer.

They are asked by ARP or neighbour discovery, through the kernel's table of neighbours: that needs
no raw sockets, and a gateway that answers no pings answers it. A gateway that is known without
being asked, as on a tunnel, can prove nothing and counts as silent.

Source: linux/neighbour.h; the states are those of RFC 4861, section 7.3.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable

from services.network.errors import NetlinkFailedError
from services.network.netlink import READ_BYTES, open_socket
from services.network.networks.listing import (
    NUD_FAILED,
    NUD_INCOMPLETE,
    NUD_NOARP,
    NUD_PERMANENT,
    NUD_PROBE,
    NUD_REACHABLE,
    DefaultRoute,
    find_request,
    neighbour_request,
    probe_request,
    state_in,
)
from services.network.rtnetlink import messages

_PAUSE_S = 0.02
# The kernel gives up after three questions, one second apart; until then it need not be told again.
_AGAIN_S = 1.0
_REQUEST_TIMEOUT_S = 2.0
_UNTELLING = NUD_NOARP | NUD_PERMANENT


async def find_answering(
    routes: Iterable[DefaultRoute], timeout_s: float
) -> tuple[DefaultRoute, ...]:
    """Ask gateways now, each as often as the time allows; those that answered."""
    found: list[DefaultRoute] = []

    async def ask(route: DefaultRoute) -> None:
        # One that can't be asked about has not answered.
        with contextlib.suppress(NetlinkFailedError):
            if await _answers(route):
                found.append(route)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
            for route in routes:
                group.create_task(ask(route))
    return tuple(found)


async def _answers(route: DefaultRoute) -> bool:
    """Ask until it answers; False where that would prove nothing."""
    loop = asyncio.get_running_loop()
    told_s, is_asked = loop.time() - _AGAIN_S, False
    with open_socket() as sock:
        while True:
            state = await _state(sock, route)
            if state & _UNTELLING:
                return False
            if is_asked and state & NUD_REACHABLE:
                return True
            if loop.time() - told_s >= _AGAIN_S:
                is_unknown = not state or state & (NUD_FAILED | NUD_INCOMPLETE)
                make = find_request if is_unknown else probe_request
                if not state & NUD_PROBE:
                    await _exchange(sock, make(route.index, route.gateway))
                told_s, is_asked = loop.time(), True
            await asyncio.sleep(_PAUSE_S)


async def _state(sock: socket.socket, route: DefaultRoute) -> int:
    return state_in(messages(await _exchange(sock, neighbour_request(route.index, route.gateway))))


async def _exchange(sock: socket.socket, request: bytes) -> bytes:
    """One request and its answer; an error in it means that the neighbour is not known."""
    try:
        async with asyncio.timeout(_REQUEST_TIMEOUT_S):
            sock.sendto(request, (0, 0))
            return await asyncio.get_running_loop().sock_recv(sock, READ_BYTES)
    except OSError as exc:
        raise NetlinkFailedError(f"can't ask for a gateway: {exc.strerror}") from exc
