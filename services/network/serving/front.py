"""What is served, as the network service sees it: opened when there is something to serve.

Light, because every network service imports it; a node without networks never loads the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocol.errors import NovacronError
from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.records import Plain, from_wire, to_wire
from supervisor.child.service import Request, ServiceContext

if TYPE_CHECKING:
    from services.network.model import Link, NetworkSettings
    from services.network.networks.model import NetworksDocument
    from services.network.serving.part import ServingPart

CALLS = ("networks.leases",)

# Runs a task of the service, whose unexpected error ends it.
Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]  # Any: asyncio's own


class Serving:
    """Serves what the networks document says.

    Args:
        context: the service's.
        settings: the service's.
        links: gives the host's links, as last read.
        read_links: reads them anew.
        on_change: is called when ``health`` may have changed.
        spawn: runs a task of the service.
    """

    def __init__(
        self,
        context: ServiceContext,
        settings: NetworkSettings,
        *,
        links: Callable[[], Iterable[Link]],
        read_links: Callable[[], Awaitable[None]],
        on_change: Callable[[], None],
        spawn: Spawn,
    ) -> None:
        self._context = context
        self._state_dir = Path(settings.state_dir)
        self._log_dir = Path(settings.log_dir) if settings.log_dir else None
        self._links = links
        self._read_links = read_links
        self._on_change = on_change
        self._spawn = spawn
        self._part: ServingPart | None = None
        self._wanted: NetworksDocument | None = None
        self._fault = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def health(self) -> Health:
        """Degraded while anything of what is wanted is not served."""
        if self._fault:
            return Health(HealthState.DEGRADED, self._fault)
        return HEALTHY if self._part is None else self._part.health

    async def check(self, request: Request) -> None:
        """See that the document of a plan or a change could be served; changes nothing.

        Raises:
            RemoteProtocolError: it is no document.
            DnsmasqMissingError, NftMissingError: a program is missing.
            DnsmasqConfigError: it can't be served; the message names the network.
        """
        match request.body:
            case {"document": dict(wire)}:
                pass
            case _:
                return
        from services.network.networks.model import NetworksDocument

        document = from_wire(NetworksDocument, wire)
        if not _has_subnets(document):
            return
        from services.network.serving.errors import DnsmasqConfigError
        from services.network.serving.part import check
        from services.network.serving.translate import served

        try:
            networks = served(document)
        except ValueError as exc:
            raise DnsmasqConfigError(str(exc)) from exc
        await check(networks, self._links())

    def want(self, document: NetworksDocument | None) -> None:
        """Serve a document from now on."""
        if document == self._wanted:
            return
        self._wanted = document
        self._begin()

    async def applied(self) -> None:
        """Wait until what is wanted is served anew, or has failed.

        Also where nothing changed: somebody else may have changed the rules. The caller's end does
        not end it.
        """
        if self._task is None or self._task.done():
            self._begin()
        if self._task is not None:
            await asyncio.shield(self._task)

    def poke(self) -> None:
        """Links have changed."""
        if self._part is not None:
            self._part.poke()

    async def look(self) -> None:
        """Compare the host with what is served."""
        if self._part is not None:
            await self._part.look()

    async def call(self, name: str, request: Request) -> Plain:
        """Answer one of ``CALLS``."""
        if self._part is not None:
            return await self._part.calls()[name](request)
        from services.network.serving.lending import check_request
        from services.network.serving.messages import LeasesView

        check_request(request, ())
        return to_wire(LeasesView())

    def close(self) -> None:
        """Stop following; what is served goes on."""
        if self._part is not None:
            self._part.close()

    def _begin(self) -> None:
        if self._part is not None or self._was_open() or _has_subnets(self._wanted):
            self._task = self._spawn(self._serve(), "serve-networks")

    async def _serve(self) -> None:
        from services.network.serving.children import Children
        from services.network.serving.part import ServingPart
        from services.network.serving.translate import served

        try:
            if self._part is None:
                self._part = ServingPart(
                    self._context,
                    self._state_dir,
                    Children(self._context, self._log_dir),
                    links=self._links,
                    on_change=self._on_change,
                )
                self._spawn(self._part.follow(), "follow-served")
            await self._read_links()  # a bridge that was just made is among them
            await self._part.serve(() if self._wanted is None else served(self._wanted))
            self._fault = ""
        except (NovacronError, ValueError) as exc:
            self._fault = f"not served: {exc}"
            self._context.log.error("networks_not_served", reason=str(exc))
        self._on_change()

    def _was_open(self) -> bool:
        return (self._state_dir / "network" / "serving").exists()


def _has_subnets(document: NetworksDocument | None) -> bool:
    return document is not None and any(network.subnets for network in document.networks)
