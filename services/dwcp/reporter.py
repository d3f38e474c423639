"""What the world hears of transfers: events of starts and ends, and metrics while they run."""

from __future__ import annotations

from collections.abc import Iterable

from protocol.messages.metrics import MetricKind, MetricSample
from protocol.records import Plain
from services.dwcp.ledger import Change
from services.dwcp.model import TransferState, TransferStatus
from supervisor.child.service import ServiceContext

BANDWIDTH = "novacron_dwcp_bandwidth_bytes_per_second"
LATENCY = "novacron_dwcp_latency_seconds"
COMPRESSION_RATIO = "novacron_dwcp_compression_ratio"
# A histogram of round trips needs no more than this per transfer.
PERIOD_S = 1.0


class Reporter:
    """Turns changes and states into events and samples.

    Args:
        context: of the manager.
    """

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._measured_s = 0.0

    def publish(self, changes: Iterable[Change]) -> None:
        """Emit what happened; a transfer that ended also gives its mean figures."""
        for change in changes:
            status = change.status
            if not change.has_ended:
                self._context.emit("dwcp:transfer-started", **_subject(status))
            elif status.state is TransferState.FINISHED:
                self._context.emit(
                    "dwcp:transfer-finished",
                    **_subject(status),
                    data_bytes=status.data_bytes,
                    wire_bytes=status.wire_bytes,
                    duration_s=(status.ended_s or status.started_s) - status.started_s,
                    rate_bytes_s=status.rate_bytes_s,
                    streams=status.streams,
                )
                self._measure((status,))
            else:
                self._context.emit(
                    "dwcp:transfer-failed",
                    **_subject(status),
                    error=status.error,
                    message=status.message,
                )

    def measure(self, running: tuple[TransferStatus, ...], now_s: float) -> None:
        """Record the figures of running transfers, at most once per second."""
        if now_s - self._measured_s >= PERIOD_S:
            self._measured_s = now_s
            self._measure(running)

    def measure_idle(self) -> None:
        """Nothing moves any more."""
        self._sample(MetricKind.GAUGE, BANDWIDTH, 0.0)

    def _measure(self, transfers: tuple[TransferStatus, ...]) -> None:
        if not transfers:
            return
        self._sample(MetricKind.GAUGE, BANDWIDTH, sum(s.rate_bytes_s for s in transfers))
        if wire_bytes := sum(status.wire_bytes for status in transfers):
            ratio = sum(status.data_bytes for status in transfers) / wire_bytes
            self._sample(MetricKind.GAUGE, COMPRESSION_RATIO, ratio)
        for status in transfers:
            if status.rtt_s is not None:
                self._sample(MetricKind.HISTOGRAM, LATENCY, status.rtt_s)

    def _sample(self, kind: MetricKind, name: str, value: float) -> None:
        self._context.measure(MetricSample(kind, name, value))


def _subject(status: TransferStatus) -> dict[str, Plain]:
    return {
        "transfer": status.transfer,
        "direction": status.direction.value,
        "file": status.file,
        "peer": status.peer,
        "size_bytes": status.size_bytes,
    }
