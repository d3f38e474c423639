"""The network service: reads the host's links and keeps the node's bridge as configured.

What becomes of the bridge, and of the component's health::

    disabled   not wanted                                  healthy
    kept       as configured                               healthy
    skipped    CAP_NET_ADMIN is missing                    degraded
    conflict   the host has something of that name/address degraded, until a change clears it
    failed     the kernel refused                          degraded, tried again with growing pauses
    removed    somebody keeps removing it                  degraded, left alone for a minute

The segments (services/network/segments) and the networks (services/network/networks) have parts of
their own; see there. They degrade the component while something else than what is wanted is in
force.

Links are read in all of these. Any change of a link or address leads to reading everything anew
and planning again. The bridge stays when the service stops: guests may use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.records import Plain, from_wire, to_wire
from services.network.errors import (
    BridgeConflictError,
    MissingCapabilityError,
    NetlinkFailedError,
)
from services.network.link_metrics import measure_links
from services.network.model import (
    BridgeState,
    BridgeStatus,
    Link,
    NetworkSettings,
    NetworkStatus,
)
from services.network.netlink import LinkChanges, Netlink
from services.network.plan import (
    REPAIRS_MAX,
    REPAIRS_WINDOW_S,
    CreateBridge,
    Step,
    may_repair,
    plan_bridge,
)
from services.network.serving.front import CALLS as SERVING_CALLS
from services.network.serving.front import Serving
from supervisor.child.service import CallHandler, Request, Service, ServiceContext

if TYPE_CHECKING:
    from services.network.networks.part import NetworksPart
    from services.network.segments.part import SegmentsPart

# Starting one guest makes a handful of link events; one reading answers them all.
SETTLE_S = 0.05
# Reading thousands of links takes a while; a storm of changes may cost a fifth of a CPU at most.
SETTLE_READINGS = 4.0
RETRY_INITIAL_S = 1.0
RETRY_MAX_S = 60.0
# A link takes some 300 bytes on the wire and a message holds 1 MiB.
LINKS_LISTED_MAX = 2048
_NETWORK_CALLS = ("networks.plan", "networks.apply", "networks.show")
_SEGMENT_CALLS = ("segments.plan", "segments.apply", "segments.show", "segments.trace")


class NetworkService(Service):
    """``core/network``: calls ``network.links``, ``.status``, ``networks.…``, ``segments.…``."""

    async def init(self, context: ServiceContext) -> None:
        """Read the links, bring the bridge about as far as possible, and follow changes.

        Raises:
            RemoteProtocolError: the settings are not those of NetworkSettings.
            NetlinkFailedError: the kernel does not even let links be read.
        """
        self._context = context
        self._settings = from_wire(NetworkSettings, context.settings)
        self._bridge = BridgeStatus(name=self._settings.bridge.name, state=BridgeState.DISABLED)
        self._links: tuple[Link, ...] = ()
        self._repaired_at_s: deque[float] = deque(maxlen=REPAIRS_MAX)
        self._resyncs = 0
        self._was_kept = False
        self._health: Health | None = None
        self._retry_s: float | None = None
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._netlink = Netlink()
        self._changes: LinkChanges | None = self._subscribe()
        self._segments: SegmentsPart | None = None
        self._segments_fault = ""
        self._networks: NetworksPart | None = None
        self._serving = Serving(
            context,
            self._settings,
            links=lambda: self._links,
            read_links=self._read_links,
            on_change=lambda: self._set_health(self._overall()),
            spawn=self._spawn,
        )
        self._opening = asyncio.Lock()
        await self._reconcile()
        if self._settings.state_dir and self._has_files("networks.*"):
            await self._open_networks()
        if self._settings.state_dir and self._has_files("segments.*"):
            try:
                await self._open_segments()
            except NetlinkFailedError as exc:  # without CAP_NET_ADMIN, as the bridge
                self._segments_fault = f"segments skipped: {exc.message}"
                self._set_health(self._overall())
        self._spawn(self._follow(), "follow-links")
        self._spawn(self._keep(), "keep-bridge")
        self._spawn(measure_links(self._context, lambda: self._links), "measure-links")

    def calls(self) -> Mapping[str, CallHandler]:
        """The calls of this level."""
        own: dict[str, CallHandler] = {
            "network.links": self._call_links,
            "network.status": self._call_status,
        }
        if self._settings.state_dir:
            own |= {name: partial(self._call_segments, name) for name in _SEGMENT_CALLS}
            own |= {name: partial(self._call_networks, name) for name in _NETWORK_CALLS}
            own |= {name: partial(self._serving.call, name) for name in SERVING_CALLS}
        return own

    async def check(self) -> Health:
        """Read the links now and say how the bridge is."""
        try:
            self._links = await self._netlink.read_links()
        except NetlinkFailedError as exc:
            return Health(HealthState.UNHEALTHY, exc.message)
        if self._segments is not None:
            await self._segments.look()
        if self._networks is not None:
            await self._networks.look()
        await self._serving.look()
        return self._overall()

    async def terminate(self) -> None:
        """Stop following; the bridge stays."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._changes is not None:
            self._changes.close()
        self._netlink.close()
        if self._segments is not None:
            self._segments.close()
        self._serving.close()

    async def _call_links(self, _request: Request) -> Plain:
        """Reply: {"links": [Link, …], "omitted": int}, by index."""
        links = await self._netlink.read_links()
        listed = links[:LINKS_LISTED_MAX]
        return {"links": to_wire(listed), "omitted": len(links) - len(listed)}

    async def _call_status(self, _request: Request) -> Plain:
        """Reply: NetworkStatus."""
        status = NetworkStatus(links=len(self._links), bridge=self._bridge, resyncs=self._resyncs)
        return to_wire(status)

    async def _read_links(self) -> None:
        self._links = await self._netlink.read_links()

    @property
    def _state_dir(self) -> Path:
        return Path(self._settings.state_dir) / "network"

    def _has_files(self, pattern: str) -> bool:
        try:
            return any(self._state_dir.glob(pattern))
        except OSError:
            return True  # opening them says what is wrong

    async def _call_segments(self, name: str, request: Request) -> Plain:
        """A call of the segments' part, which most nodes never open; see there."""
        async with self._opening:
            if self._segments is None:
                await self._open_segments()
        assert self._segments is not None, "it has just been opened"
        return await self._segments.calls()[name](request)

    async def _call_networks(self, name: str, request: Request) -> Plain:
        """A call of the networks' part, as ``_call_segments``."""
        async with self._opening:
            if self._networks is None:
                await self._open_networks()
        assert self._networks is not None, "it has just been opened"
        if name != "networks.show":
            await self._serving.check(request)
        reply = await self._networks.calls()[name](request)
        if name == "networks.apply":
            await self._serving.applied()
        return reply

    async def _open_networks(self) -> None:
        # Imported here: a node without networks boots without it.
        from services.network.networks.part import NetworksPart

        self._networks = NetworksPart(
            self._context,
            self._state_dir,
            node_id=self._settings.node_id,
            on_change=self._networks_changed,
        )
        await self._networks.open()

    def _networks_changed(self) -> None:
        self._set_health(self._overall())
        if self._networks is not None:
            self._serving.want(self._networks.document)

    async def _open_segments(self) -> None:
        # Imported here: a node without segments boots without it.
        from services.network.segments.part import SegmentsPart

        self._segments = SegmentsPart(
            self._context,
            self._state_dir,
            links=lambda: self._links,
            on_change=lambda: self._set_health(self._overall()),
        )
        await self._segments.open()
        self._spawn(self._segments.follow(), "follow-segments")
        self._spawn(self._segments.count(), "count-drops")

    def _overall(self) -> Health:
        """The worst of the bridge's health, the networks', what is served, and the segments'."""
        bridge = _health(self._bridge)
        if bridge is not HEALTHY:
            return bridge
        if self._networks is not None and self._networks.health is not HEALTHY:
            return self._networks.health
        if self._serving.health is not HEALTHY:
            return self._serving.health
        if self._segments is not None:
            return self._segments.health
        if self._segments_fault:
            return Health(HealthState.DEGRADED, self._segments_fault)
        return HEALTHY

    def _subscribe(self) -> LinkChanges:
        changes = LinkChanges()
        try:
            changes.subscribe()
        except NetlinkFailedError:
            changes.close()
            raise
        return changes

    async def _follow(self) -> None:
        """Ask for a reading after each change; after a lost one, on a new socket."""
        pause_s = RETRY_INITIAL_S
        while True:
            try:
                if self._changes is None:
                    self._changes = self._subscribe()
                    self._changed.set()
                async with contextlib.aclosing(self._changes.changes()) as changes:
                    async for _ in changes:
                        pause_s = RETRY_INITIAL_S
                        self._changed.set()
            except NetlinkFailedError as exc:
                self._context.log.warning("link_changes_lost", reason=exc.message)
                self._resyncs += 1
                if self._changes is not None:
                    self._changes.close()
                    self._changes = None
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)

    async def _keep(self) -> None:
        """Plan and apply anew after each change, and after a pause where something failed."""
        took_s = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._retry_s):
                    await self._changed.wait()
            await asyncio.sleep(max(SETTLE_S, SETTLE_READINGS * took_s))
            self._changed.clear()
            began_s = time.monotonic()
            try:
                await self._reconcile()
            except NetlinkFailedError as exc:  # links can't be read
                self._retry_later()
                self._context.log.warning("links_unreadable", reason=exc.message)
                self._set_health(Health(HealthState.UNHEALTHY, exc.message))
            took_s = time.monotonic() - began_s

    async def _reconcile(self) -> None:
        """Read all links, do what the plan says, and publish how the bridge is.

        Raises:
            NetlinkFailedError: the links could not be read.
        """
        links = await self._netlink.read_links()
        if len(links) != len(self._links):
            self._measure(MetricKind.GAUGE, "novacron_network_links", len(links))
        self._links = links
        try:
            bridge = await self._bring_about(links)
        except MissingCapabilityError as exc:
            self._retry_s = None  # nobody gives a running process a capability
            bridge = self._named(BridgeState.SKIPPED, f"bridge skipped: {exc.message}")
        except BridgeConflictError as exc:
            self._retry_s = None  # a change of links clears it and is told
            bridge = self._named(BridgeState.CONFLICT, exc.message)
        except NetlinkFailedError as exc:
            self._retry_later()
            bridge = self._named(BridgeState.FAILED, exc.message)
        self._publish(bridge)
        if self._networks is not None:
            await self._networks.look()
        self._serving.poke()

    async def _bring_about(self, links: tuple[Link, ...]) -> BridgeStatus:
        steps = plan_bridge(self._settings, links)
        if not self._settings.bridge.enabled:
            return self._named(BridgeState.DISABLED)
        if steps and self._was_kept and not may_repair(self._repaired_at_s, time.monotonic()):
            self._retry_s = REPAIRS_WINDOW_S
            return self._named(
                BridgeState.REMOVED,
                f"{self._bridge.name} was changed {REPAIRS_MAX} times within "
                f"{REPAIRS_WINDOW_S:.0f} s by somebody else and is left alone for as long",
            )
        for step in steps:
            await self._netlink.apply(step)
        self._retry_s = None
        kept = self._named(BridgeState.KEPT)
        return self._note_done(kept, steps) if steps else kept

    def _note_done(self, kept: BridgeStatus, steps: tuple[Step, ...]) -> BridgeStatus:
        done: list[Plain] = [type(step).__name__ for step in steps]
        if self._was_kept:
            self._repaired_at_s.append(time.monotonic())
            kept = replace(kept, repairs=kept.repairs + 1)
            self._context.emit("network:bridge-repaired", bridge=kept.name, steps=done)
            self._measure(MetricKind.COUNTER, "novacron_network_bridge_repairs_total", 1)
        elif any(isinstance(step, CreateBridge) for step in steps):
            self._context.emit("network:bridge-created", bridge=kept.name, steps=done)
        self._context.log.info("bridge_set_up", name=kept.name, steps=done)
        return kept

    def _publish(self, bridge: BridgeStatus) -> None:
        self._was_kept = self._was_kept or bridge.state is BridgeState.KEPT
        if bridge.reason and bridge.reason != self._bridge.reason:
            self._context.log.warning(
                "bridge_not_kept", name=bridge.name, state=bridge.state.value, reason=bridge.reason
            )
        self._bridge = bridge
        self._set_health(self._overall())

    def _set_health(self, health: Health) -> None:
        if health != self._health:
            self._health = health
            self._context.set_health(health)

    def _named(self, state: BridgeState, reason: str = "") -> BridgeStatus:
        return replace(self._bridge, state=state, reason=reason)

    def _retry_later(self) -> None:
        self._retry_s = min(self._retry_s * 2, RETRY_MAX_S) if self._retry_s else RETRY_INITIAL_S

    def _measure(self, kind: MetricKind, name: str, value: float) -> None:
        self._context.measure(MetricSample(kind, name, value))

    def _spawn(
        self, work: Coroutine[Any, Any, None], name: str
    ) -> asyncio.Task[None]:  # Any: asyncio's own
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._context.fail(error)


def _health(bridge: BridgeStatus) -> Health:
    if bridge.state in (BridgeState.KEPT, BridgeState.DISABLED):
        return HEALTHY
    return Health(HealthState.DEGRADED, bridge.reason)
