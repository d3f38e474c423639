"""The process ``optional/workload``: sample, store, forget.

Every interval it reads the host's counters, asks ``core/vm`` for the running domains and what they
use, and stores all of it. What keeps it from either makes it degraded, with the reason, and no
more: samples wait for the database, the newest ``pending_max`` of them, and are stored without
domains, or what these use, where nobody could tell.

Call: ``workload.latest`` nothing -> WorkloadStatus.
Events: ``workload:store-lost`` (reason), ``workload:store-recovered`` (pending, dropped).
Metrics: ``novacron_host_…`` gauges, ``novacron_workload_samples_total`` by outcome.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from protocol.errors import NovacronError
from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.records import Plain, from_wire, to_wire
from services.optional.workload import plan
from services.optional.workload.errors import StoreUnavailableError
from services.optional.workload.host import read_host
from services.optional.workload.model import (
    HostReading,
    WorkloadSample,
    WorkloadSettings,
    WorkloadStatus,
)
from services.optional.workload.store import SampleStore
from services.vm.model import DomainList, DomainRecord
from services.vm.statistics.model import DomainStatistics, StatisticsReply
from supervisor.child.service import CallHandler, Request, Service, ServiceContext

VM = "core/vm"
# The first sample comes soon, so that there is something to see; rates need some time to mean
# anything.
FIRST_SAMPLE_S = 1.0
DELETE_PERIOD_S = 3600.0
# Figures of machines are read at an interval of their own; a sample takes them as they are.
AGE_MAX_S = 15.0
# Besides the domains themselves, of 1 MiB.
STATISTICS_TOLD_MAX = 512
# Twice this is less than the time that a process has to go down.
STOP_TIMEOUT_S = 2.0


class WorkloadService(Service):
    """Samples host and domains into the database."""

    async def init(self, context: ServiceContext) -> None:
        """Take the first reading; the database is not waited for."""
        self._context = context
        self._settings = settings = from_wire(WorkloadSettings, context.settings)
        self._store = SampleStore(
            settings.postgres, node_id=settings.node_id, timeout_s=settings.store_timeout_s
        )
        self._pending: deque[WorkloadSample] = deque()
        self._latest: WorkloadSample | None = None
        self._stored = self._dropped = 0
        self._store_reason = self._domains_reason = ""
        self._deleted_s = float("-inf")
        self._health = HEALTHY
        self._task = asyncio.get_running_loop().create_task(self._sample_forever(read_host()))
        self._task.add_done_callback(self._ended)

    def calls(self) -> Mapping[str, CallHandler]:
        """See the head of the file."""
        return {"workload.latest": self._tell_latest}

    async def check(self) -> Health:
        """As the last round left it; the next one is at most an interval away."""
        return self._health

    async def terminate(self) -> None:
        """Stop sampling and store what is pending, if that is quickly done."""
        self._task.cancel()
        await asyncio.wait((self._task,), timeout=STOP_TIMEOUT_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                if self._pending and not self._store_reason:
                    await self._flush()
                await self._store.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._context.fail(error)

    async def _sample_forever(self, reading: HostReading) -> None:
        interval_s = self._settings.sample_interval_s
        due_s = time.monotonic() + min(FIRST_SAMPLE_S, interval_s)
        while True:
            await asyncio.sleep(max(due_s - time.monotonic(), 0.0))
            reading = await self._sample(reading)
            await self._flush()
            await self._delete_old()
            self._say_health()
            due_s = plan.next_tick_s(due_s, interval_s, time.monotonic())

    async def _sample(self, before: HostReading) -> HostReading:
        after = read_host()
        host = plan.sample_of(before, after)
        domains = await self._running_domains()
        statistics = await self._statistics() if domains else ()
        sample = WorkloadSample(
            time_s=time.time(), host=host, domains=domains, statistics=statistics
        )
        self._latest = sample
        if len(self._pending) >= self._settings.pending_max:
            self._pending.popleft()
            self._dropped += 1
            self._count("dropped", 1)
        self._pending.append(sample)
        for gauge in plan.gauges_of(host):
            self._context.measure(gauge)
        return after

    async def _running_domains(self) -> tuple[DomainRecord, ...] | None:
        """The running domains; None, and a reason, when nobody can tell."""
        self._domains_reason = ""
        if not self._settings.domains_enabled:
            return ()
        timeout_s = self._settings.call_timeout_s
        try:
            answer = await self._context.call(VM, "vm.list", timeout_s=timeout_s)
            found = from_wire(DomainList, answer)
        except NovacronError as exc:
            self._domains_reason = f"no domains: {exc}"
            return None
        if found.is_stale:
            self._domains_reason = f"no domains: {VM} has no answer from libvirt"
            return None
        return tuple(item for item in found.domains if item.state.is_active)

    async def _statistics(self) -> tuple[DomainStatistics, ...]:
        """What they use, as far as it is known; ``core/vm`` itself says what keeps it from that."""
        body: Plain = {"age_max_s": min(self._settings.sample_interval_s, AGE_MAX_S)}
        try:
            answer = await self._context.call(
                VM, "vm.statistics", body, timeout_s=self._settings.call_timeout_s
            )
            found = from_wire(StatisticsReply, answer)
        except NovacronError as exc:
            self._context.log.debug("statistics_unknown", reason=str(exc))
            return ()
        if found.is_stale:
            return ()
        return tuple(item for item in found.domains if not item.is_stale)

    async def _flush(self) -> None:
        """Store what is pending, the oldest first."""
        batch = tuple(self._pending)
        if not batch:
            return
        try:
            await self._store.write(batch)
        except StoreUnavailableError as exc:
            if not self._store_reason:
                self._context.emit("workload:store-lost", reason=str(exc))
            self._store_reason = f"samples are not stored: {exc}"
            return
        if self._store_reason:
            self._context.emit(
                "workload:store-recovered", pending=len(batch), dropped=self._dropped
            )
        self._store_reason = ""
        # Nothing was added meanwhile: one task does all of this.
        self._pending.clear()
        self._stored += len(batch)
        self._count("stored", len(batch))

    async def _delete_old(self) -> None:
        if self._store_reason or time.monotonic() - self._deleted_s < DELETE_PERIOD_S:
            return
        oldest_s = plan.oldest_kept_s(time.time(), self._settings.retention_days)
        try:
            deleted = await self._store.delete_before(oldest_s)
        except StoreUnavailableError as exc:
            self._store_reason = f"old samples are not deleted: {exc}"
            return
        self._deleted_s = time.monotonic()
        if deleted:
            self._context.log.info("old_samples_deleted", samples=deleted)

    def _count(self, outcome: str, samples: int) -> None:
        self._context.measure(
            MetricSample(
                MetricKind.COUNTER, "novacron_workload_samples_total", samples, {"outcome": outcome}
            )
        )

    def _say_health(self) -> None:
        reason = self._reason()
        self._health = Health(HealthState.DEGRADED, reason) if reason else HEALTHY
        self._context.set_health(self._health)

    def _reason(self) -> str:
        return "; ".join(part for part in (self._store_reason, self._domains_reason) if part)

    def _tell_latest(self, request: Request) -> Plain:
        del request
        return to_wire(
            WorkloadStatus(
                sample=_for_a_message(self._latest),
                stored=self._stored,
                pending=len(self._pending),
                dropped=self._dropped,
                reason=self._reason(),
            )
        )


def _for_a_message(sample: WorkloadSample | None) -> WorkloadSample | None:
    if sample is None or len(sample.statistics) <= STATISTICS_TOLD_MAX:
        return sample
    return replace(sample, statistics=sample.statistics[:STATISTICS_TOLD_MAX])
