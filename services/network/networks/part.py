"""The networks within the network service: calls, health and events.

    networks.plan   {"document": NetworksDocument or null, "force": bool}  -> PlanReply
    networks.apply  {"document": …, "check": SegmentCheck, "force": bool}  -> Applied
    networks.show   {}                                                     -> NetworksView

A document of null means the one that was applied last. Health is degraded while the host has
something else than what was applied; a node that never had any networks is healthy.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from protocol import codec
from protocol.errors import NovacronError
from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.records import Plain, from_wire, to_wire
from services.network.errors import NetlinkFailedError
from services.network.networks.apply import Networks
from services.network.networks.errors import (
    NetworksCheckFailedError,
    NetworksDocumentError,
    NetworksStateError,
    NetworksTargetSilentError,
)
from services.network.networks.gateways import find_answering
from services.network.networks.kernel import Kernel
from services.network.networks.listing import DefaultRoute
from services.network.networks.model import NetworksDocument
from services.network.networks.observed import Marks, Observed, SeenLink
from services.network.networks.reading import read_gateways, read_host
from services.network.networks.records import (
    LinkView,
    NetworksState,
    NetworksView,
    PlanReply,
)
from services.network.networks.steps import describe_step
from services.network.networks.store import NetworkStore
from services.network.segments.errors import SegmentsCheckFailedError
from services.network.segments.probe import SegmentCheck, probe_targets
from supervisor.child.service import Request, ServiceContext

# A message holds 1 MiB: the document, or steps and links of some 200 bytes each.
DOCUMENT_BYTES_MAX = 600 << 10
STEPS_LISTED_MAX = 2000
REASONS_LISTED_MAX = 200
LINKS_LISTED_MAX = 500
PORTS_LISTED_MAX = 16
# How long a gateway may take to answer before a change, so as to be asked after it.
GATEWAY_WAIT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """Body of ``networks.plan``; without a document it is about what was applied last."""

    document: NetworksDocument | None = None
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyRequest:
    """Body of ``networks.apply``.

    Attributes:
        document: None to put back what was applied last.
        check: what must answer before and after; without targets, the default gateways that
            answered before must answer afterwards.
        force: detach somebody else's ports of bridges that are deleted.
    """

    document: NetworksDocument | None = None
    check: SegmentCheck = field(default_factory=SegmentCheck)
    force: bool = False


class NetworksPart:
    """The networks as the service runs them.

    Args:
        context: the service's.
        directory: where the wanted document is kept.
        node_id: marks the links.
        on_change: is called when ``health`` or ``document`` may have changed.
    """

    def __init__(
        self,
        context: ServiceContext,
        directory: Path,
        *,
        node_id: str,
        on_change: Callable[[], None],
    ) -> None:
        self._context = context
        self._on_change = on_change
        self._marks = Marks(node_id)
        self._networks = Networks(Kernel(), NetworkStore(directory), self._marks)
        self._fault = ""
        self._drift = ""

    @property
    def document(self) -> NetworksDocument | None:
        """What was applied last; None where nothing was or it can't be read."""
        return self._networks.document

    @property
    def health(self) -> Health:
        """Degraded while the host has something else than what was applied."""
        status = self._networks.status
        if self._fault:
            return Health(HealthState.DEGRADED, self._fault)
        if status.state in (NetworksState.NONE, NetworksState.IN_FORCE):
            return HEALTHY
        return Health(HealthState.DEGRADED, f"networks: {status.reason}")

    def calls(self) -> Mapping[str, Callable[[Request], Awaitable[Plain]]]:
        """The calls of this part."""
        return {
            "networks.plan": self._call_plan,
            "networks.apply": self._call_apply,
            "networks.show": self._call_show,
        }

    async def open(self) -> None:
        """Take back what was not confirmed; what hinders it shows in ``health``."""
        try:
            restored = await self._networks.open()
        except NetworksStateError as exc:
            self._fault = exc.message
            self._context.log.error("networks_unreadable", reason=exc.message)
        else:
            if restored:
                self._told_restored(restored)
            await self.look()
        self._on_change()

    async def look(self) -> None:
        """Compare the host with what was applied; mend or tell, as the document wants."""
        if self._fault:
            return
        try:
            look = await self._networks.look()
        except NetlinkFailedError as exc:
            self._context.log.warning("networks_unverified", reason=exc.message)
            return
        if look.restored:
            self._told_restored(look.restored)
        if look.repaired:
            steps: list[Plain] = [
                describe_step(step) for step in look.repaired[:REASONS_LISTED_MAX]
            ]
            self._context.log.warning("networks_repaired", steps=steps)
            self._context.emit("networks:repaired", reason=look.drift, steps=len(look.repaired))
        elif look.drift and look.drift != self._drift:
            self._context.log.warning("networks_drifted", reason=look.drift)
            self._context.emit("networks:drifted", reason=look.drift)
        self._drift = "" if look.repaired else look.drift
        self._on_change()

    async def _call_plan(self, request: Request) -> Plain:
        wanted = from_wire(PlanRequest, request.body)
        self._check_readable()
        plan = await self._networks.plan(wanted.document, force=wanted.force)
        reply = PlanReply(
            revision=self._networks.status.revision,
            steps=plan.steps[:STEPS_LISTED_MAX],
            omitted=max(0, len(plan.steps) - STEPS_LISTED_MAX),
            conflicts=plan.conflicts[:REASONS_LISTED_MAX],
            warnings=plan.warnings[:REASONS_LISTED_MAX],
        )
        return to_wire(reply)

    async def _call_apply(self, request: Request) -> Plain:
        wanted = from_wire(ApplyRequest, request.body)
        self._check_readable()
        if len(codec.encode(to_wire(wanted.document))) > DOCUMENT_BYTES_MAX:
            raise NetworksDocumentError(
                f"the document takes more than {DOCUMENT_BYTES_MAX >> 10} KiB, more than a node's "
                "reply could show"
            )
        try:
            gateways = await self._before(wanted.check)
            applied = await self._networks.apply(
                wanted.document, lambda: self._after(wanted.check, gateways), force=wanted.force
            )
        except NovacronError as exc:
            self._context.emit(
                "networks:refused", caller=request.caller, code=exc.code, reason=exc.message
            )
            self._context.log.warning("networks_refused", code=exc.code, reason=exc.message)
            raise
        finally:
            self._on_change()
        self._drift = ""
        self._context.emit(
            "networks:applied",
            caller=request.caller,
            revision=applied.revision,
            steps=applied.steps,
        )
        self._context.log.info("networks_applied", revision=applied.revision, steps=applied.steps)
        return to_wire(applied)

    async def _call_show(self, _request: Request) -> Plain:
        self._check_readable()
        views = _views(await read_host(self._marks), self._marks)
        return to_wire(
            NetworksView(
                status=self._networks.status,
                document=self._networks.document,
                links=views[:LINKS_LISTED_MAX],
                omitted=max(0, len(views) - LINKS_LISTED_MAX),
            )
        )

    async def _before(self, check: SegmentCheck) -> tuple[DefaultRoute, ...]:
        """What must answer after the change: the gateways that answer now.

        Raises:
            NetworksTargetSilentError: a target that was named is silent already.
        """
        if not check.targets:
            return await find_answering(await read_gateways(), GATEWAY_WAIT_S)
        try:
            await probe_targets(check)
        except SegmentsCheckFailedError as exc:
            raise NetworksTargetSilentError(
                f"nothing was changed, because even before it {exc.message}"
            ) from exc
        return ()

    async def _after(
        self, check: SegmentCheck, before: tuple[DefaultRoute, ...]
    ) -> tuple[str, ...]:
        """Ask what must answer.

        Raises:
            NetworksCheckFailedError: it did not, within the time that the check gives.
        """
        if check.targets:
            try:
                await probe_targets(check)
            except SegmentsCheckFailedError as exc:
                raise NetworksCheckFailedError(exc.message, **exc.fields) from exc
            return check.targets
        return await self._ask_gateways({route.gateway for route in before}, check.timeout_s)

    async def _ask_gateways(self, before: set[str], timeout_s: float) -> tuple[str, ...]:
        if not before:
            return ()
        deadline_s = time.monotonic() + timeout_s
        # A gateway may be reached over another link now, such as a bridge that has its address.
        routes = [route for route in await read_gateways() if route.gateway in before]
        found = await find_answering(routes, max(0.0, deadline_s - time.monotonic()))
        silent = before - {route.gateway for route in found}
        if silent:
            named = ", ".join(sorted(silent))
            raise NetworksCheckFailedError(
                f"the default gateway {named} answered before the change and did not within "
                f"{timeout_s:g} s after it",
                targets=sorted(silent),
            )
        return tuple(f"gateway {address}" for address in sorted(before))

    def _told_restored(self, restored: str) -> None:
        self._context.log.warning("networks_restored", reason=restored)
        self._context.emit(
            "networks:restored", revision=self._networks.status.revision, reason=restored
        )

    def _check_readable(self) -> None:
        if self._fault:
            raise NetworksStateError(self._fault)


def _views(seen: Observed, marks: Marks) -> tuple[LinkView, ...]:
    return tuple(
        _view(item, network, seen)
        for item in seen.links
        if (network := marks.network_of(item.link)) is not None
    )


def _view(item: SeenLink, network: str, seen: Observed) -> LinkView:
    ports = sorted(port.name for port in seen.ports_of.get(item.index, ()))
    return LinkView(
        name=item.name,
        network=network,
        kind=item.link.kind,
        is_up=item.link.is_up,
        mtu=item.link.mtu,
        master=seen.master_of(item),
        addresses=item.link.addresses,
        ports=tuple(ports[:PORTS_LISTED_MAX]),
        ports_omitted=max(0, len(ports) - PORTS_LISTED_MAX),
    )
