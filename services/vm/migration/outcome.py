"""What is told of a migration: events, measurements, and the operation's result."""

from __future__ import annotations

import time

from protocol.messages.metrics import MetricKind, MetricSample
from protocol.records import Plain, to_wire
from services.vm.migration.journal import Undertaking
from services.vm.migration.model import Figures
from supervisor.child.service import ServiceContext


def result_of(had: Undertaking, last: Figures, figures: Figures, held_s: float) -> dict[str, Plain]:
    """Of a guest that was moved.

    Args:
        had: what was wanted.
        last: read while it was sent; the disks are told of there alone.
        figures: as libvirt measured it in the end; all 0 where it did not say.
        held_s: from libvirt's end to the guest's first step on the target, and the last word.
    """
    memory = max(figures.memory_sent_bytes, last.memory_sent_bytes)
    disk = max(figures.disk_sent_bytes, last.disk_sent_bytes)
    return {
        "node": had.route.node,
        "total_s": round(time.time() - had.began_s, 3),
        "downtime_ms": figures.downtime_ms + round(1000 * held_s),
        "sent_bytes": memory + disk,
        "memory_sent_bytes": memory,
        "disk_sent_bytes": disk,
        "iterations": figures.iteration,
    }


def live_result(figures: Figures) -> dict[str, Plain]:
    """Of one that is under way."""
    told = to_wire(figures)
    assert isinstance(told, dict)
    return told


class Reporter:
    """Says it to the journal, the log and the measurements."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    def started(self, had: Undertaking) -> None:
        """Sending is about to begin."""
        self._tell("started", had)

    def moved(self, had: Undertaking, result: dict[str, Plain]) -> None:
        """The guest is on the target, and nowhere else."""
        self._tell("migrated", had, **{k: v for k, v in result.items() if k != "node"})
        self._count("moved")
        for name, key in (("seconds", "total_s"), ("bytes", "sent_bytes")):
            self._observe(name, float(result[key]))
        self._observe("downtime_seconds", float(result["downtime_ms"]) / 1000)

    def failed(self, had: Undertaking, reason: str) -> None:
        """It is not, or nobody knows."""
        self._tell("failed", had, detail=reason)
        self._count("failed")

    def unreadable(self, path: str, why: str) -> None:
        """A file of what was begun says nothing."""
        self._context.log.warning("migration_unreadable", path=path, reason=why)

    def _tell(self, what: str, had: Undertaking, **fields: Plain) -> None:
        name = {"started": "vm:migration-started", "migrated": "vm:migrated"}.get(
            what, "vm:migration-failed"
        )
        told = {
            "vm": had.name,
            "uuid": had.uuid,
            "source": had.from_node,
            "node": had.route.node,
            **fields,
        }
        self._context.log.info("migration", what=what, **told)
        self._context.emit(name, **told)

    def _count(self, outcome: str) -> None:
        self._context.measure(
            MetricSample(
                MetricKind.COUNTER, "novacron_vm_migrations_total", 1, {"outcome": outcome}
            )
        )

    def _observe(self, name: str, value: float) -> None:
        self._context.measure(
            MetricSample(MetricKind.HISTOGRAM, f"novacron_vm_migration_{name}", value, {})
        )
