"""What each component of a node uses: readings of its processes put together; pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from protocol.messages.health import HealthState
from protocol.messages.status import ComponentStatus, NodeStatus, Verdict
from services.ctl.components import root_status
from services.ctl.procfs import Machine, Reading

SCHEMA = "novacron.top/1"


class Sort(enum.Enum):
    """By what the components are ordered; most first, but for names."""

    CPU = "cpu"
    MEMORY = "memory"
    RESTARTS = "restarts"
    NAME = "name"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentUsage:
    """One component.

    Attributes:
        path, state, kind, pid, restarts, uptime_s: as in its status; ``novacron`` is the root.
        processes: how many were counted: one, and for a command all those below it.
        cpu_percent: of one processor, since the sample before; None in the first one.
        resident_bytes: memory in RAM. Pages that processes share are counted in each.
        proportional_bytes: memory in RAM, shared pages by share; None unless asked for.
        threads, fds: of all its processes; ``fds`` is None where this user may not look.
    """

    path: str
    state: HealthState
    kind: str
    pid: int | None
    restarts: int
    uptime_s: float | None
    processes: int = 0
    cpu_percent: float | None = None
    resident_bytes: int | None = None
    proportional_bytes: int | None = None
    threads: int | None = None
    fds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUsage:
    """The node as a whole, and the machine that it runs on; sums are of what could be read.

    Attributes:
        cpu_percent: of one processor, so up to 100 for each of ``cpus``.
        load: averages of 1, 5 and 15 minutes.
    """

    verdict: Verdict
    reason: str
    node_id: str
    pid: int
    uptime_s: float
    processes: int
    threads: int
    restarts: int
    cpu_percent: float | None
    resident_bytes: int
    proportional_bytes: int | None
    cpus: int
    load: tuple[float, ...]
    memory_total_bytes: int
    memory_available_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TopReport:
    """One sample: novacronctl top --json prints this record.

    Attributes:
        time_s: Unix time.
        interval_s: since the sample before; None in the first one.
        components: in the order that was asked for.
    """

    schema: str
    time_s: float
    interval_s: float | None
    node: NodeUsage
    components: tuple[ComponentUsage, ...]


class Meter:
    """Turns readings into rates; remembers those of the sample before."""

    def __init__(self) -> None:
        self._cpu_s: dict[tuple[int, int], float] = {}
        self._at_s: float | None = None

    def report(
        self,
        status: NodeStatus,
        readings: Mapping[str, Sequence[Reading]],
        machine: Machine,
        *,
        now_s: float,
        unix_s: float,
    ) -> TopReport:
        """Make the report of one sample.

        Args:
            status: the node.
            readings: of the processes of each component, by path.
            machine: the host.
            now_s: monotonic time.
            unix_s: the same moment for people.
        """
        interval_s = None if self._at_s is None else max(now_s - self._at_s, 1e-3)
        components = tuple(
            self._usage(component, readings.get(component.path, ()), interval_s, machine.cpus)
            for component in (root_status(status), *status.components)
        )
        self._cpu_s = {
            (reading.pid, reading.start_ticks): reading.cpu_s
            for group in readings.values()
            for reading in group
        }
        self._at_s = now_s
        return TopReport(
            schema=SCHEMA,
            time_s=unix_s,
            interval_s=interval_s,
            node=_node(status, components, machine, interval_s),
            components=components,
        )

    def _usage(
        self,
        component: ComponentStatus,
        readings: Sequence[Reading],
        interval_s: float | None,
        cpus: int,
    ) -> ComponentUsage:
        percent = None
        if interval_s is not None and readings:
            # What was not there before has used all that it used since then.
            used_s = sum(r.cpu_s - self._cpu_s.get((r.pid, r.start_ticks), 0.0) for r in readings)
            percent = round(min(max(used_s / interval_s, 0.0), float(cpus)) * 100, 1)
        return ComponentUsage(
            path=component.path,
            state=component.state,
            kind=component.kind,
            pid=component.pid,
            restarts=component.restarts,
            uptime_s=component.uptime_s,
            processes=len(readings),
            cpu_percent=percent,
            resident_bytes=_sum(r.resident_bytes for r in readings),
            proportional_bytes=_sum(r.proportional_bytes for r in readings),
            threads=_sum(r.threads for r in readings),
            fds=_sum(r.fds for r in readings),
        )


def in_order(components: Iterable[ComponentUsage], sort: Sort) -> tuple[ComponentUsage, ...]:
    """The components as they are to be shown; those that are equal stay in the tree's order."""
    found = tuple(components)
    match sort:
        case Sort.CPU:
            return tuple(sorted(found, key=lambda c: -(c.cpu_percent or 0.0)))
        case Sort.MEMORY:
            return tuple(sorted(found, key=lambda c: -(memory_of(c) or 0)))
        case Sort.RESTARTS:
            return tuple(sorted(found, key=lambda c: -c.restarts))
        case Sort.NAME:
            return found


def memory_of(component: ComponentUsage) -> int | None:
    """The better of the two figures that is known."""
    if component.proportional_bytes is not None:
        return component.proportional_bytes
    return component.resident_bytes


def _node(
    status: NodeStatus,
    components: Sequence[ComponentUsage],
    machine: Machine,
    interval_s: float | None,
) -> NodeUsage:
    percents = (c.cpu_percent for c in components if c.cpu_percent is not None)
    return NodeUsage(
        verdict=status.verdict,
        reason=status.reason,
        node_id=status.platform.node_id,
        pid=status.platform.pid,
        uptime_s=status.platform.uptime_s,
        processes=sum(c.processes for c in components),
        threads=sum(c.threads or 0 for c in components),
        restarts=sum(c.restarts for c in components),
        cpu_percent=None if interval_s is None else round(sum(percents), 1),
        resident_bytes=sum(c.resident_bytes or 0 for c in components),
        proportional_bytes=_sum(c.proportional_bytes for c in components),
        cpus=machine.cpus,
        load=machine.load,
        memory_total_bytes=machine.memory_total_bytes,
        memory_available_bytes=machine.memory_available_bytes,
    )


def _sum(amounts: Iterable[int | None]) -> int | None:
    """The sum of what is known; None when nothing is."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None
