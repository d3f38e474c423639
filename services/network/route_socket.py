"""Changing the host's links: the steps of a plan on pyroute2's route socket. Adapter for pyroute2.

Only a process that has something to change imports this.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, assert_never

from services.network.errors import MissingCapabilityError, NetlinkFailedError
from services.network.netlink import NO_CAPABILITY
from services.network.plan import AddAddress, CreateBridge, MarkBridge, RaiseBridge, Step
from services.network.pyroute2_core import enter_package

enter_package()
from pyroute2.iproute.linux import AsyncIPRoute  # noqa: E402 - the package must be entered first
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402 - same


class RouteSocket:
    """Use it in the loop that created it; then ``close``."""

    def __init__(self) -> None:
        self._socket: Any = AsyncIPRoute()  # Any: pyroute2 has no types

    async def apply(self, step: Step) -> None:
        """Carry one step out; a step that is already done is no error.

        Raises:
            MissingCapabilityError: the kernel does not let this process.
            NetlinkFailedError: it refused otherwise.
            OSError: the socket does not work.
        """
        with _translated(f"{type(step).__name__} {step.name}"):
            await self._apply(step)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

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


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as exc:
        if exc.code in (errno.EPERM, errno.EACCES):
            raise MissingCapabilityError(NO_CAPABILITY, doing=doing) from exc
        raise NetlinkFailedError(
            f"could not {doing}: {errno.errorcode.get(exc.code, exc.code)}", errno=exc.code
        ) from exc
