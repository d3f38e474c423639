"""What the gateway knows of the tree: the node's status, and what its components list."""

from __future__ import annotations

import datetime as dt
from collections import Counter

from protocol.errors import (
    CallTimeoutError,
    NovacronError,
    PeerUnavailableError,
    RemoteCallError,
    RemoteProtocolError,
)
from protocol.messages.status import ComponentStatus, NodeStatus
from protocol.records import Plain, from_wire
from services.api.errors import (
    ComponentAnswerError,
    ComponentUnavailableError,
    UnknownComponentError,
    UnknownMachineError,
)
from services.api.schemas import Component, Node, Phase, Vm, VmUsage
from services.telemetry.reader import StatusReader
from services.vm.model import DomainList, DomainRecord
from services.vm.statistics.model import DomainStatistics, StatisticsReply
from supervisor.child.service import ServiceContext

VM = "core/vm"
# Pages that are built from several endpoints ask for the same status within this time.
STATUS_AGE_MAX_S = 0.25
# What the component says when it has not come up yet, or has too much to do.
_PASSING_CODES = ("protocol.no_method", "overloaded")


class Tree:
    """Asks the tree on behalf of requests.

    Args:
        context: to call with.
        call_timeout_s: for a component's answer.
    """

    def __init__(self, context: ServiceContext, *, call_timeout_s: float) -> None:
        self._context = context
        self._call_timeout_s = call_timeout_s
        self._reader = StatusReader(context)
        self._details = StatusReader(context, with_memory=True)

    async def status(self, *, with_memory: bool = False) -> NodeStatus:
        """The node's status, at most a quarter of a second old; a second with memory figures.

        Raises:
            ComponentUnavailableError: the root does not answer.
        """
        if with_memory:
            reading = await self._details.read()
        else:
            reading = await self._reader.read(age_max_s=STATUS_AGE_MAX_S)
        if reading.error or reading.status is None:
            raise ComponentUnavailableError(reading.error)
        return reading.status

    async def require_component(self, path: str) -> None:
        """See that the node has a component.

        Raises:
            UnknownComponentError: it has none of that path.
            ComponentUnavailableError: the root does not answer.
        """
        if not any(item.path == path for item in (await self.status()).components):
            raise UnknownComponentError(f"the node has no component {path!r:.80}")

    async def domains(self) -> DomainList:
        """The virtual machines of this node, by name.

        Raises:
            ComponentUnavailableError: the VM component is down.
            ComponentAnswerError: it answered with something else.
        """
        answer = await self._ask(VM, "vm.list")
        try:
            return from_wire(DomainList, answer)
        except RemoteProtocolError as exc:
            raise ComponentAnswerError(f"{VM} answered vm.list with another shape: {exc}") from exc

    async def domain(self, ref: str) -> tuple[DomainRecord, bool]:
        """A virtual machine of this node by name or UUID; True where it is the last known.

        Raises:
            UnknownMachineError: the node has none.
            ComponentUnavailableError, ComponentAnswerError: as for ``domains``.
        """
        known = await self.domains()
        for item in known.domains:
            if ref in (item.name, item.uuid):
                return item, known.is_stale
        raise UnknownMachineError(f"the node has no machine {ref!r:.80}")

    async def usage(self, uuid: str) -> DomainStatistics | None:
        """What a machine uses; None where nobody can tell."""
        try:
            answer = await self._ask(VM, "vm.statistics", {"domain": uuid, "age_max_s": 15.0})
            found = from_wire(StatisticsReply, answer)
        except NovacronError:
            return None
        return next((item for item in found.domains if not found.is_stale), None)

    async def _ask(self, path: str, method: str, body: Plain = None) -> Plain:
        try:
            return await self._context.call(path, method, body, timeout_s=self._call_timeout_s)
        except (PeerUnavailableError, CallTimeoutError) as exc:
            raise ComponentUnavailableError(str(exc), component=path) from exc
        except RemoteCallError as exc:
            if exc.remote_retryable or exc.remote_code in _PASSING_CODES:
                raise ComponentUnavailableError(f"{path}: {exc}", component=path) from exc
            raise ComponentAnswerError(f"{path}: {exc}", remote_code=exc.remote_code) from exc
        except RemoteProtocolError as exc:
            raise ComponentAnswerError(f"{path}: {exc}") from exc
        except NovacronError as exc:
            raise ComponentUnavailableError(f"{path}: {exc}", component=path) from exc


def node_of(status: NodeStatus) -> Node:
    """The body that describes a node."""
    platform, phase = status.platform, status.phase
    return Node(
        id=platform.node_id,
        name=platform.name,
        version=platform.version,
        environment=platform.environment,
        roles=list(platform.roles),
        status=status.verdict,
        reason=status.reason,
        phase=Phase(number=phase.number, name=phase.name, complete=phase.complete),
        started_at=dt.datetime.fromtimestamp(platform.started_s, tz=dt.UTC),
        uptime_seconds=platform.uptime_s,
        boot_seconds=platform.boot_s,
        components=dict(Counter(item.state.value for item in status.components)),
    )


def component_of(item: ComponentStatus, node_id: str) -> Component:
    """The body that describes a component."""
    return Component(
        node_id=node_id,
        path=item.path,
        id=item.id,
        level=item.level,
        kind=item.kind,
        failure=item.failure,
        phase=item.phase,
        state=item.state,
        reason=item.reason,
        pid=item.pid,
        cpus=list(item.cpus),
        restarts=item.restarts,
        uptime_seconds=item.uptime_s,
        memory_bytes=item.memory_bytes,
        last_exit=item.last_exit,
        retry_in_seconds=item.retry_in_s,
    )


def vm_of(item: DomainRecord, node_id: str) -> Vm:
    """The body that describes a virtual machine."""
    return Vm(
        node_id=node_id,
        uuid=item.uuid,
        name=item.name,
        state=item.state,
        reason=item.reason,
        vcpus=item.vcpus,
        memory_bytes=item.memory_bytes,
        persistent=item.is_persistent,
        autostart=item.autostart,
    )


def usage_of(item: DomainStatistics) -> VmUsage:
    """The body that describes what a machine uses."""
    return VmUsage(
        cpu_percent=item.cpu_percent,
        memory_assigned_bytes=item.memory_assigned_bytes,
        memory_used_bytes=item.memory_used_bytes,
        memory_resident_bytes=item.memory_resident_bytes,
        disk_read_bytes_per_second=item.read_bytes_s,
        disk_written_bytes_per_second=item.written_bytes_s,
        network_received_bytes_per_second=item.received_bytes_s,
        network_sent_bytes_per_second=item.sent_bytes_s,
    )
