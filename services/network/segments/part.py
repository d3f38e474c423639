"""The segments within the network service: calls, health, events and counts.

    segments.plan   {"document": SegmentDocument}                    -> SegmentPlan
    segments.apply  {"document": SegmentDocument or null, "check": SegmentCheck} -> Applied
    segments.show   {}                                               -> SegmentsView
    segments.trace  {"question": TraceQuestion, "document": or null} -> TraceAnswer

A document of null means the one that is in force. Health is degraded while the segments are not in
force as they were applied; a node that never had any is healthy without nft.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from protocol import codec
from protocol.errors import NovacronError, RemoteProtocolError
from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.records import Plain, from_wire, to_wire
from services.network.model import Link
from services.network.segments.apply import Segments
from services.network.segments.changes import TableChanges
from services.network.segments.errors import (
    NftFailedError,
    NftMissingError,
    NftTimeoutError,
    SegmentsNotWantedError,
    SegmentsStateError,
    SegmentsTargetSilentError,
    SegmentsTooLargeError,
)
from services.network.segments.messages import DropCount, SegmentsState, SegmentsView
from services.network.segments.model import SegmentDocument
from services.network.segments.nft import Nft
from services.network.segments.plan import SegmentPlan
from services.network.segments.probe import SegmentCheck, probe_targets
from services.network.segments.skeleton import DROPPED
from services.network.segments.store import SegmentStore
from services.network.segments.trace import TraceQuestion, trace
from supervisor.child.service import Request, ServiceContext

COUNT_PERIOD_S = 15.0
# A reply holds 1 MiB: the document, and some 60 bytes for each interface with drops.
DOCUMENT_BYTES_MAX = 900 << 10
DROPS_LISTED_MAX = 1000
# A program that changes our table over and over costs one reading in so long.
LOOK_PAUSE_S = 2.0
_LOOK_ATTEMPTS_FAILED = (NftMissingError, NftFailedError, NftTimeoutError, SegmentsStateError)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """Body of ``segments.plan``."""

    document: SegmentDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyRequest:
    """Body of ``segments.apply``; without a document what is wanted is put back."""

    document: SegmentDocument | None = None
    check: SegmentCheck = field(default_factory=SegmentCheck)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRequest:
    """Body of ``segments.trace``; without a document it is about what is in force."""

    question: TraceQuestion
    document: SegmentDocument | None = None


class SegmentsPart:
    """The segments as the service runs them.

    Args:
        context: the service's.
        directory: where the wanted set is kept.
        links: gives the host's links, for warnings.
        on_change: is called when ``health`` may have changed.
    """

    def __init__(
        self,
        context: ServiceContext,
        directory: Path,
        *,
        links: Callable[[], Iterable[Link]],
        on_change: Callable[[], None],
        nft: Nft | None = None,
    ) -> None:
        self._context = context
        self._links = links
        self._on_change = on_change
        self._nft = Nft() if nft is None else nft
        self._changes = TableChanges()
        self._segments = Segments(self._nft, SegmentStore(directory), changes=self._changes)
        self._fault = ""
        self._is_readable = True
        self._counted: dict[tuple[str, str], int] = {}

    async def open(self) -> None:
        """Put back what is wanted; what hinders it shows in ``health``."""
        try:
            restored = await self._segments.open()
        except SegmentsStateError as exc:
            self._fault, self._is_readable = exc.message, False
            self._context.log.error("segments_unreadable", reason=exc.message)
            self._on_change()
            return
        if restored:
            self._context.log.warning("segments_restored", reason=restored)
            self._context.emit(
                "segments:restored", revision=self._segments.status.revision, reason=restored
            )
        self._on_change()

    def close(self) -> None:
        """Stop following; the rules stay in force."""
        self._changes.close()

    @property
    def health(self) -> Health:
        """Degraded while something else than the wanted set is in force."""
        status = self._segments.status
        if self._fault:
            return Health(HealthState.DEGRADED, self._fault)
        if status.state in (SegmentsState.NONE, SegmentsState.IN_FORCE):
            return HEALTHY
        return Health(HealthState.DEGRADED, status.reason)

    def calls(self) -> Mapping[str, Callable[[Request], Awaitable[Plain]]]:
        """The calls of this part."""
        return {
            "segments.plan": self._call_plan,
            "segments.apply": self._call_apply,
            "segments.show": self._call_show,
            "segments.trace": self._call_trace,
        }

    async def follow(self) -> None:
        """Look whenever somebody else changed the table, for ever."""
        while True:
            await self._changes.changed.wait()
            await self.look()
            await asyncio.sleep(LOOK_PAUSE_S)

    async def count(self) -> None:
        """Tell of dropped packets, for ever."""
        while True:
            await asyncio.sleep(COUNT_PERIOD_S)
            if self._segments.status.state is SegmentsState.IN_FORCE:
                await self.count_once()

    async def look(self) -> None:
        """Compare the kernel's table with what was applied."""
        if not self._is_readable:
            return
        before = self._segments.status.state
        try:
            is_same = await self._segments.verify()
        except _LOOK_ATTEMPTS_FAILED as exc:
            self._fault = exc.message
            self._context.log.warning("segments_unverified", reason=exc.message)
        else:
            self._fault = ""
            if not is_same and before is not SegmentsState.DRIFTED:
                reason = self._segments.status.reason
                self._context.log.warning("segments_drifted", reason=reason)
                self._context.emit("segments:drifted", reason=reason)
        self._on_change()

    async def count_once(self) -> None:
        """Measure what was dropped since the last time."""
        try:
            found = await self._nft.read_drops(DROPPED)
        except (NftMissingError, NftFailedError, NftTimeoutError) as exc:
            self._context.log.warning("segments_uncounted", reason=exc.message)
            return
        for (name, interface), total in found.items():
            # A counter that is smaller than before began anew.
            before = self._counted.get((name, interface), 0)
            increment = total - before if total >= before else total
            if increment:
                labels = {"interface": interface, "reason": name.removeprefix("dropped-")}
                self._context.measure(
                    MetricSample(
                        MetricKind.COUNTER,
                        "novacron_network_segment_dropped_packets_total",
                        increment,
                        labels,
                    )
                )
        self._counted = found

    async def _call_plan(self, request: Request) -> Plain:
        wanted = from_wire(PlanRequest, request.body)
        self._check_readable()
        plan = await self._segments.plan(wanted.document)
        return to_wire(self._warned(plan, wanted.document))

    async def _call_apply(self, request: Request) -> Plain:
        wanted = from_wire(ApplyRequest, request.body)
        check = wanted.check

        async def probe() -> None:
            if check.targets:
                await probe_targets(check)

        self._check_readable()
        if len(codec.encode(to_wire(wanted.document))) > DOCUMENT_BYTES_MAX:
            raise SegmentsTooLargeError(
                f"the document takes more than {DOCUMENT_BYTES_MAX >> 10} KiB: name peers by labels"
            )
        if check.targets:
            try:
                await probe_targets(check)
            except NovacronError as exc:
                raise SegmentsTargetSilentError(
                    f"nothing was changed, because even before it {exc.message}"
                ) from exc
        try:
            applied = await self._segments.apply(wanted.document, probe)
        except NovacronError as exc:
            self._context.emit(
                "segments:refused", caller=request.caller, code=exc.code, reason=exc.message
            )
            self._context.log.warning("segments_refused", code=exc.code, reason=exc.message)
            raise
        finally:
            self._fault = ""
            self._on_change()
            self._changes.changed.set()  # learn the fingerprint
        self._context.emit(
            "segments:applied",
            caller=request.caller,
            revision=applied.revision,
            steps=applied.steps,
        )
        self._context.log.info("segments_applied", revision=applied.revision)
        return to_wire(applied)

    async def _call_show(self, _request: Request) -> Plain:
        self._check_readable()
        status = self._segments.status
        counts: dict[str, dict[str, int]] = {}
        if status.state is SegmentsState.IN_FORCE:
            for (name, interface), total in (await self._nft.read_drops(DROPPED)).items():
                if total:
                    counts.setdefault(interface, {})[name] = total
        drops = tuple(
            DropCount(
                interface=interface,
                spoofed=found.get("dropped-spoof", 0),
                sent=found.get("dropped-out", 0),
                received=found.get("dropped-in", 0),
            )
            for interface, found in _most(counts)
        )
        return to_wire(SegmentsView(status=status, document=self._segments.document, drops=drops))

    async def _call_trace(self, request: Request) -> Plain:
        wanted = from_wire(TraceRequest, request.body)
        if wanted.document is None:
            self._check_readable()
        document = wanted.document or self._segments.document
        if document is None:
            raise SegmentsNotWantedError("no segments were ever applied: name a document")
        try:
            return to_wire(trace(document, wanted.question))
        except ValueError as exc:
            raise RemoteProtocolError(str(exc)) from exc

    def _check_readable(self) -> None:
        if not self._is_readable:
            raise SegmentsStateError(self._fault)

    def _warned(self, plan: SegmentPlan, document: SegmentDocument) -> SegmentPlan:
        links = {link.name: link for link in self._links()}
        warnings = []
        for item in document.interfaces:
            link = links.get(item.name)
            if link is None:
                warnings.append(f"{item.name}: the host has no such link now")
            elif link.addresses and any(not text.startswith("fe80:") for text in link.addresses):
                warnings.append(f"{item.name}: the host itself has {link.addresses[0]} there")
            elif link.bridge_index is None:
                warnings.append(f"{item.name}: it is no port of a bridge, so nothing is filtered")
        return replace(plan, warnings=tuple(warnings))


def _most(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, Mapping[str, int]]]:
    """The interfaces with the most drops, by name."""
    ordered = sorted(counts.items(), key=lambda item: -sum(item[1].values()))
    return sorted(ordered[:DROPS_LISTED_MAX])
