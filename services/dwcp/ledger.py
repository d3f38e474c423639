"""What the manager knows about transfers and transports. No I/O.

Reports of the transports come in; changes that the world should hear of come out: a transfer has
started or ended. A transfer that both started and ended between two reports gives both changes.

Invariant: a transfer is ended once. Its totals are counted at that moment and its key is handed
back to the transport with the next query. So a restarted manager misses nothing, and counts twice
only what ended in the moment between the saving of the totals and that query.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from services.dwcp.errors import DwcpError, TransportLostError
from services.dwcp.model import (
    Direction,
    Totals,
    TransferState,
    TransferStatus,
    TransportHealth,
    TransportReport,
)

# What ``dwcp.status`` still lists; a file per second for some minutes.
HISTORY_MAX = 200
# A stream that was handed over shows up in the next report, or was refused there.
ROUTE_S = 5.0
# A transport that is gone comes back within a moment, as another incarnation.
UNAVAILABLE_S = 3.0
# One that merely does not answer may be stuck on a bad disk; its supervisor ends it earlier.
SILENT_S = 30.0


@dataclass(frozen=True, slots=True)
class Change:
    """A transfer has started or, when its status says so, ended."""

    status: TransferStatus
    has_ended: bool


@dataclass(slots=True)
class _Transport:
    """What is known of one transport process; ``silent_s`` is since when it gives no report."""

    incarnation: str = ""
    silent_s: float | None = None
    forget: set[str] = dataclasses.field(default_factory=set)


class Ledger:
    """The manager's book.

    Args:
        transports: ids of the transport processes.
    """

    def __init__(self, transports: Iterable[str]) -> None:
        self.totals = Totals()
        self._transports = {name: _Transport() for name in transports}
        self._running: dict[str, TransferStatus] = {}
        self._ended: deque[TransferStatus] = deque(maxlen=HISTORY_MAX)
        self._routes: dict[str, tuple[str, float]] = {}

    @property
    def is_active(self) -> bool:
        """Some transport has something to report."""
        return bool(self._running or self._routes)

    def transfers(self) -> tuple[TransferStatus, ...]:
        """Running ones, then ended ones, each newest first."""
        running = sorted(self._running.values(), key=lambda status: -status.started_s)
        return (*running, *reversed(self._ended))

    def running(self) -> tuple[TransferStatus, ...]:
        """Those that have not ended."""
        return tuple(self._running.values())

    def health(self) -> tuple[TransportHealth, ...]:
        """The transports as they were when last asked."""
        return tuple(
            TransportHealth(
                id=name,
                is_available=bool(known.incarnation) and known.silent_s is None,
                transfers=self.load(name),
            )
            for name, known in self._transports.items()
        )

    def load(self, transport: str) -> int:
        """Transfers that a transport carries or is about to."""
        carried = {s.transfer for s in self._running.values() if s.transport == transport}
        routed = {name for name, (owner, _since) in self._routes.items() if owner == transport}
        return len(carried | routed)

    def by_load(self) -> list[str]:
        """The transports to give a new transfer to: available ones first, then the idlest."""
        return sorted(
            self._transports,
            key=lambda name: (self._transports[name].silent_s is not None, self.load(name)),
        )

    def route(self, transfer: str) -> str | None:
        """The transport that has the transfer's first incoming stream."""
        found = self._routes.get(transfer)
        return found[0] if found is not None else None

    def add_route(self, transfer: str, transport: str, now_s: float) -> None:
        """The first stream of an incoming transfer goes to this transport."""
        self._routes[transfer] = (transport, now_s)

    def drop_route(self, transfer: str) -> None:
        """It did not get there."""
        self._routes.pop(transfer, None)

    def query(self, transport: str) -> tuple[str, ...]:
        """Keys that the transport may forget."""
        return tuple(self._transports[transport].forget)

    def add_totals(self, earlier: Totals) -> None:
        """Add what was counted before this run."""
        ours = dataclasses.asdict(self.totals)
        summed = {name: ours[name] + value for name, value in dataclasses.asdict(earlier).items()}
        self.totals = Totals(**summed)

    def take_report(
        self, transport: str, report: TransportReport, *, now_s: float, unix_s: float
    ) -> list[Change]:
        """Take in what a transport reports.

        Args:
            transport: its id.
            report: its answer to a query that handed back ``query(transport)``.
            now_s: monotonic time.
            unix_s: the time of day, for what turns out to have ended.
        """
        known = self._transports[transport]
        changes: list[Change] = []
        if known.incarnation and known.incarnation != report.incarnation:
            changes += self._lose(transport, unix_s)
            known.forget.clear()
        known.incarnation, known.silent_s = report.incarnation, None
        reported = {status.key for status in report.transfers}
        known.forget &= reported
        for status in report.transfers:
            if status.key not in known.forget:
                changes += self.take_status(status)
        for status in self._carried_by(transport):
            if status.key not in reported:
                error = TransportLostError(f"{transport} does not know it any more")
                changes += self._fail(status, error, unix_s)
        self._expire_routes(transport, now_s)
        return changes

    def take_silence(
        self, transport: str, *, now_s: float, unix_s: float, is_gone: bool
    ) -> list[Change]:
        """A transport gave no report: it is not running, or did not answer in time."""
        known = self._transports[transport]
        if known.silent_s is None:
            known.silent_s = now_s
        if now_s - known.silent_s < (UNAVAILABLE_S if is_gone else SILENT_S):
            return []
        return self._lose(transport, unix_s)

    def take_status(self, status: TransferStatus) -> list[Change]:
        """Take in the state of one transfer."""
        changes = [] if status.key in self._running else [Change(status, has_ended=False)]
        if not status.is_ended:
            self._running[status.key] = status
            return changes
        self._running.pop(status.key, None)
        if status.direction is Direction.RECEIVE:
            self._routes.pop(status.transfer, None)
        self._ended.append(status)
        if (known := self._transports.get(status.transport)) is not None:
            known.forget.add(status.key)
        self._count(status)
        return [*changes, Change(status, has_ended=True)]

    def _lose(self, transport: str, unix_s: float) -> list[Change]:
        for transfer, (owner, _since) in tuple(self._routes.items()):
            if owner == transport:
                del self._routes[transfer]
        error = TransportLostError(f"the process {transport} that carried it died")
        changes: list[Change] = []
        for status in self._carried_by(transport):
            changes += self._fail(status, error, unix_s)
        return changes

    def _carried_by(self, transport: str) -> list[TransferStatus]:
        return [status for status in self._running.values() if status.transport == transport]

    def _fail(self, status: TransferStatus, error: DwcpError, unix_s: float) -> list[Change]:
        return self.take_status(
            dataclasses.replace(
                status,
                state=TransferState.FAILED,
                error=error.code,
                message=error.message,
                eta_s=None,
                ended_s=unix_s,
            )
        )

    def _expire_routes(self, transport: str, now_s: float) -> None:
        running = {s.transfer for s in self._running.values() if s.direction is Direction.RECEIVE}
        for transfer, (owner, since_s) in tuple(self._routes.items()):
            if owner == transport and transfer not in running and now_s - since_s > ROUTE_S:
                del self._routes[transfer]

    def _count(self, status: TransferStatus) -> None:
        totals = self.totals
        if status.state is TransferState.FAILED:
            self.totals = dataclasses.replace(totals, failed_transfers=totals.failed_transfers + 1)
        elif status.direction is Direction.SEND:
            self.totals = dataclasses.replace(
                totals,
                sent_transfers=totals.sent_transfers + 1,
                sent_bytes=totals.sent_bytes + status.size_bytes,
            )
        else:
            self.totals = dataclasses.replace(
                totals,
                received_transfers=totals.received_transfers + 1,
                received_bytes=totals.received_bytes + status.size_bytes,
            )
