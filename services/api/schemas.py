"""The bodies of requests and answers, version 1: a public interface.

A field is added freely; it is renamed, removed or given another meaning only in another version.
Times are RFC 3339 in UTC, durations seconds, sizes bytes.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from protocol.messages.access import Role
from protocol.messages.health import HealthState
from protocol.messages.status import Verdict
from services.api.identity import Means
from services.vm.model import DomainState
from services.vm.operations.model import OperationState


class _Body(BaseModel):
    # Built at first use: a node that nobody asks through HTTP does not pay for it while it boots.
    model_config = ConfigDict(frozen=True, defer_build=True)


class FieldProblem(_Body):
    """One part of a request that is not as it has to be."""

    location: str = Field(description="Where, such as query.limit.")
    message: str


class Problem(_Body):
    """An error, as RFC 9457 has it, with three members of our own."""

    type: str = Field(description="urn:novacron:problem:<code>, which tells errors apart.")
    title: str = Field(description="The status code in words.")
    status: int
    detail: str = Field(description="What went wrong this time.")
    instance: str = Field(description="The path that was asked for.")
    code: str = Field(description="Stable identifier, such as api.component_unavailable.")
    correlation_id: str = Field(description="Finds this request in the node's logs.")
    errors: list[FieldProblem] | None = None


class Phase(_Body):
    """The phase of the boot that a node is in."""

    number: int
    name: str
    complete: bool


class Node(_Body):
    """One host of the platform."""

    id: str
    name: str = Field(description="Of the platform.")
    version: str
    environment: str
    roles: list[str]
    status: Verdict
    reason: str = Field(description="Why the status is not ready; empty when it is.")
    phase: Phase
    started_at: dt.datetime
    uptime_seconds: float
    boot_seconds: float | None = Field(description="From exec to ready; null while it boots.")
    components: dict[str, int] = Field(description="How many components are in each state.")


class Component(_Body):
    """One process of a node's tree."""

    node_id: str
    path: str = Field(description="Place in the tree, such as core/vm; unique in the node.")
    id: str
    level: str
    kind: str
    failure: str = Field(description="critical, recoverable or degraded.")
    phase: int
    state: HealthState
    reason: str
    pid: int | None
    cpus: list[int]
    restarts: int
    uptime_seconds: float | None
    memory_bytes: int | None
    last_exit: str
    retry_in_seconds: float | None


class Vm(_Body):
    """One virtual machine of a node."""

    node_id: str
    uuid: str
    name: str
    state: DomainState
    reason: str = Field(description="Why it is in that state, in libvirt's words.")
    vcpus: int
    memory_bytes: int = Field(description="What the guest may use at most.")
    persistent: bool = Field(description="Stays defined when it stops.")
    autostart: bool


class VmUsage(_Body):
    """What a running machine uses; null where nobody can tell, as rates at first."""

    cpu_percent: float | None = Field(description="Of one processor.")
    memory_assigned_bytes: int | None
    memory_used_bytes: int | None = Field(description="As its own system tells.")
    memory_resident_bytes: int | None = Field(description="What it takes of the host.")
    disk_read_bytes_per_second: float | None
    disk_written_bytes_per_second: float | None
    network_received_bytes_per_second: float | None
    network_sent_bytes_per_second: float | None


class VmDetails(Vm):
    """One virtual machine, and what it uses while it runs."""

    usage: VmUsage | None = Field(description="Null while it does not run, or nobody can tell.")
    stale: bool = Field(description="The hypervisor does not answer; this is the last known.")


class VmOperation(_Body):
    """An order to a machine or image, and what came of it so far."""

    id: int = Field(description="Of this run of the VM component; it counts from 1.")
    method: str
    subject: str
    uuid: str
    state: OperationState
    final: bool = Field(description="Nothing more will come of it.")
    step: str
    progress: float | None = Field(description="From 0 to 1; null where it can't be told.")
    changed: bool = Field(description="False where it was so before.")
    note: str
    error_code: str
    error: str
    began_at: dt.datetime
    ended_at: dt.datetime | None


class Operation(_Body):
    """What came of starting, stopping or restarting a component."""

    path: str
    state: HealthState
    reason: str = Field(description="Why it is not healthy; empty when it is.")


class Caller(_Body):
    """Who a request was sent by, as the gateway knows it."""

    name: str = Field(description="Empty for nobody in particular.")
    role: Role
    means: Means


class NodeList(_Body):
    """All nodes that this one knows; at the moment itself."""

    items: list[Node]
    total: int


class ComponentList(_Body):
    """Components in start order, supervisors before their children."""

    items: list[Component]
    total: Annotated[int, Field(description="Matching components, shown here or not.")]


class VmList(_Body):
    """Virtual machines by name."""

    items: list[Vm]
    total: Annotated[int, Field(description="Matching machines, shown here or not.")]
    stale: bool = Field(description="The hypervisor does not answer; this is the last known.")
