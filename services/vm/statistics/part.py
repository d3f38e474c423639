"""What machines use, as a part of the VM service: read at an interval, told, and measured.

A reading is one call of libvirt for all machines, in a thread, within a deadline. One that hangs
leaves the last figures, which are stale then. Another is tried while it hangs: what hangs is mostly
one machine's hypervisor, which libvirt leaves out the next time, as it is busy. A second one that
hangs is waited for, and nothing else is asked meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from protocol.errors import NovacronError
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.records import Plain, from_wire, to_wire
from services.threads import start_thread, wait_done
from services.vm.errors import DomainNotFoundError, LibvirtTimeoutError
from supervisor.child.service import CallHandler, Request, ServiceContext

if TYPE_CHECKING:
    from services.vm.statistics.rates import Change
    from services.vm.statistics.reader import StatisticsReader
    from services.vm.statistics.readings import DomainReading

OVERDUE_MAX = 2
# Whoever looks on more often than this sees the same figures twice.
READ_PERIOD_MIN_S = 0.25
_CLOSE_TIMEOUT_S = 1.0


class Statistics:
    """Reads, remembers and tells.

    Args:
        context: for metrics, the log and failures.
        libvirt_uri: where libvirt is.
        interval_s: between two readings.
        timeout_s: for one of them.
        has_running: whether any machine runs; nothing is read while none does.
        changed: called when ``reason`` may be another.
    """

    def __init__(
        self,
        context: ServiceContext,
        *,
        libvirt_uri: str,
        interval_s: float,
        timeout_s: float,
        has_running: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self._context = context
        self._uri = libvirt_uri
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._has_running = has_running
        self._changed = changed
        self._reader: StatisticsReader | None = None
        self._reading = asyncio.Lock()
        self._overdue = 0
        self._fault = ""
        self._changes: dict[str, Change] = {}
        self._measured: frozenset[str] = frozenset()
        self._unmeasured = 0
        self._at_s: float | None = None
        self._time_s: float | None = None
        self._passed_s: float | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def reason(self) -> str:
        """Why the component is degraded: a reading hangs; "" while none does."""
        return self._fault if self._overdue else ""

    def start(self) -> None:
        """Begin to read at the interval."""
        self._task = asyncio.create_task(self._read_forever(), name="vm-statistics")
        self._task.add_done_callback(self._ended)

    def calls(self) -> Mapping[str, CallHandler]:
        """The calls, by name."""
        return {"vm.statistics": self._call}

    async def close(self) -> None:
        """Stop reading; waits no longer than a second for libvirt."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._reader is not None:
            future = start_thread(self._reader.close, "statistics-close")
            await wait_done(future, _CLOSE_TIMEOUT_S)

    async def _call(self, request: Request) -> Plain:
        """Body: StatisticsRequest. Reply: StatisticsReply.

        Raises:
            DomainNotFoundError: no machine of that name or UUID runs.
        """
        # Imported here: its records take longer to make than the rest of this part, at each boot.
        from services.vm.statistics.model import (
            DOMAINS_LISTED_MAX,
            StatisticsReply,
            StatisticsRequest,
        )
        from services.vm.statistics.rates import without_devices

        wanted = from_wire(StatisticsRequest, request.body or {})
        with contextlib.suppress(NovacronError):  # the reply says why it is stale
            await self._refresh(max(wanted.age_max_s, READ_PERIOD_MIN_S))
        found = sorted(
            (change.statistics for change in self._changes.values()), key=lambda item: item.name
        )
        if wanted.domain:
            found = [item for item in found if wanted.domain in (item.name, item.uuid)]
            if not found and not self._fault:
                raise DomainNotFoundError(f"no machine {wanted.domain} runs")
        else:
            found = [without_devices(item) for item in found]
        return to_wire(
            StatisticsReply(
                domains=tuple(found[:DOMAINS_LISTED_MAX]),
                time_s=self._time_s,
                interval_s=self._passed_s,
                is_stale=bool(self._fault),
                reason=self._fault,
                omitted=max(len(found) - DOMAINS_LISTED_MAX, 0),
            )
        )

    async def _read_forever(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            if self._has_running() or self._changes:
                with contextlib.suppress(NovacronError):  # told by the calls, and in the log
                    await self._refresh(self._interval_s / 2)

    async def _refresh(self, age_max_s: float) -> None:
        """Read, unless the last reading is recent enough.

        Raises:
            NovacronError: it did not come about; ``_fault`` says why.
        """
        async with self._reading:
            is_recent = self._at_s is not None and time.monotonic() - self._at_s < age_max_s
            if is_recent and not self._fault:
                return
            try:
                readings = await self._read()
            except NovacronError as exc:
                self._say_fault(exc.message)
                raise
            self._say_fault("")
            self._take(readings)

    async def _read(self) -> tuple[DomainReading, ...]:
        # Imported here: where no machine runs the service does without it.
        from services.vm.statistics.reader import StatisticsReader

        if self._overdue >= OVERDUE_MAX:
            raise LibvirtTimeoutError(self._fault)
        self._reader = self._reader or StatisticsReader(self._uri)
        future = start_thread(self._reader.read, "libvirt-statistics")
        future.add_done_callback(_retrieve)
        if not await wait_done(future, self._timeout_s):
            self._overdue += 1
            future.add_done_callback(self._late_end)
            raise LibvirtTimeoutError(
                f"libvirt has not told within {self._timeout_s:g} s what machines use"
            )
        return future.result()

    def _late_end(self, _future: asyncio.Future[tuple[DomainReading, ...]]) -> None:
        self._overdue -= 1
        self._changed()

    def _say_fault(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            log = self._context.log
            if fault:
                log.warning("statistics_stale", reason=fault)
            else:
                log.info("statistics_fresh")
            self._changed()

    def _take(self, readings: tuple[DomainReading, ...]) -> None:
        from services.vm.statistics.rates import change_between

        now_s, is_first = time.monotonic(), self._at_s is None
        self._passed_s = None if self._at_s is None else now_s - self._at_s
        self._at_s, self._time_s = now_s, time.time()
        self._changes = {
            reading.uuid: change_between(
                self._changes.get(reading.uuid), reading, is_first=is_first
            )
            for reading in readings
        }
        self._measure()

    def _measure(self) -> None:
        from services.vm.statistics import samples

        chosen, unmeasured = samples.measured(self._changes.values(), already=self._measured)
        names = frozenset(change.reading.name for change in chosen)
        for gone in sorted(self._measured - names):
            for sample in samples.samples_gone(gone):
                self._context.measure(sample)
        for change in chosen:
            is_new = change.reading.name not in self._measured
            for sample in samples.samples_of(change, is_new=is_new):
                self._context.measure(sample)
        if unmeasured != self._unmeasured:
            self._unmeasured = unmeasured
            self._context.measure(MetricSample(MetricKind.GAUGE, samples.UNMEASURED, unmeasured))
        self._measured = names

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._context.fail(error)


def _retrieve(future: asyncio.Future[tuple[DomainReading, ...]]) -> None:
    if not future.cancelled():
        future.exception()  # a late error has nobody to raise it to
