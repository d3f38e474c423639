"""The whole node, in start order: which processes there are, and what each of them is told.

    novacron                 root, rest_for_one
    ├─ telemetry             metrics and health, from phase 2 on
    ├─ data                  rest_for_one: postgres, redis (embedded), database, cache
    ├─ security
    ├─ core                  one_for_one: network, vm, dwcp (manager, transport.0 …); and
    │                        dnsmasq-<network> for each network that needs one
    ├─ api
    └─ optional              one_for_one: workload

The two roles of a node share the levels that both need: ``backend`` adds core and ``orchestration``
adds optional. A component that this version does not have is not listed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from protocol.records import Plain, to_wire
from services.config.credentials import tls_files
from services.config.kinds import DatabaseMode, Role
from services.config.model import Config
from services.data import addressing
from services.vm.settings import vm_settings
from supervisor.boot import phases
from supervisor.core.readiness import Readiness, ReadinessKind
from supervisor.core.spec import (
    Backoff,
    ChildSpec,
    ChildType,
    FailureClass,
    RestartIntensity,
    RestartStrategy,
    SupervisorSpec,
)

if TYPE_CHECKING:
    from services.security.secrets.model import SecretsPartSettings

# A component that fails more often than this within a minute has a cause that a restart does not
# remove; what is above it decides then.
_INTENSITY = RestartIntensity(intensity=5, period_s=60.0)
# What dnsmasq writes once it has its sockets.
_DNSMASQ_READY = r"dnsmasq\[\d+\]: started, version "
# One transport process moves more than 10 Gbit/s, so few suffice.
_TRANSPORTS_MAX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the node lives on its host.

    Attributes:
        state_dir, run_dir: absolute paths.
        node_user: account that the node runs as.
        is_root: whether that is root, so that servers run as the service user.
        cpus: CPUs that the node may use.
    """

    state_dir: Path
    run_dir: Path
    node_user: str
    is_root: bool
    cpus: tuple[int, ...]


def build(
    config: Config, place: Place, secrets: SecretsPartSettings | None = None
) -> SupervisorSpec:
    """The specification of the root supervisor.

    Args:
        config: with all secrets in place.
        place: where the node lives.
        secrets: what the security process is told of them, where there are any.
    """
    return _Builder(config, place, secrets).root()


def transport_cpus(config: Config, cpus: Collection[int]) -> tuple[int | None, ...]:
    """The CPU of each transport process, None for one that is not pinned.

    Configured CPUs win. Else the highest-numbered ones are taken, since interrupts and everything
    else begin at the low end; a host with a single CPU has none to give.
    """
    transport = config.dwcp.transport
    count = transport.processes or len(transport.cpus)
    if not count:
        count = max(1, min(_TRANSPORTS_MAX, len(cpus) // 4))
    if transport.cpus:
        return tuple(transport.cpus[i % len(transport.cpus)] for i in range(count))
    if len(cpus) < 2:
        return (None,) * count
    ordered = sorted(cpus, reverse=True)
    return tuple(ordered[i % (len(ordered) - 1)] for i in range(count))


class _Builder:
    def __init__(self, config: Config, place: Place, secrets: SecretsPartSettings | None) -> None:
        self._config = config
        self._place = place
        self._secrets = secrets
        self._is_embedded = config.database.mode is DatabaseMode.EMBEDDED
        self._has_backend = Role.BACKEND in config.platform.roles
        self._has_orchestration = Role.ORCHESTRATION in config.platform.roles

    def root(self) -> SupervisorSpec:
        children = [self._telemetry(), self._data(), self._security()]
        if self._has_backend:
            children.append(self._core())
        children.append(self._api(after=children[-1].id))
        if self._has_orchestration and self._config.optional.workload.enabled:
            children.append(self._optional(after=children[-2].id))
        return self._supervisor_spec(RestartStrategy.REST_FOR_ONE, children)

    def _supervisor_spec(
        self,
        strategy: RestartStrategy,
        children: Collection[ChildSpec],
        templates: tuple[ChildSpec, ...] = (),
    ) -> SupervisorSpec:
        return SupervisorSpec(
            strategy=strategy,
            intensity=_INTENSITY,
            backoff=Backoff(),
            start_concurrency=self._config.system.max_concurrency,
            children=tuple(children),
            templates=templates,
        )

    # -- phase 2 --------------------------------------------------------------------------------

    def _telemetry(self) -> ChildSpec:
        monitoring, platform = self._config.monitoring, self._config.platform
        return ChildSpec(
            id="telemetry",
            start="services.telemetry.service:TelemetryService",
            settings={
                "host": monitoring.host,
                "metrics_port": monitoring.metrics_port,
                "health_port": monitoring.health_check_port,
                "prometheus_enabled": monitoring.prometheus_enabled,
                "platform_name": platform.name,
                "platform_version": platform.version,
                "node_id": platform.node_id,
                "dwcp_enabled": self._has_backend and self._config.dwcp.enabled,
            },
            level="telemetry",
            phase=phases.LOGGING,
            depends_on=(),
            preload=("services.telemetry.service",),
        )

    # -- phase 3 --------------------------------------------------------------------------------

    def _data(self) -> ChildSpec:
        children = [self._postgres(), self._redis()] if self._is_embedded else []
        children.append(self._database())
        children.append(self._cache())
        return ChildSpec(
            id="data",
            type=ChildType.SUPERVISOR,
            level="data",
            phase=phases.DATABASE,
            failure=FailureClass.CRITICAL,
            depends_on=(),
            shutdown_s=None,
            children=self._supervisor_spec(RestartStrategy.REST_FOR_ONE, children),
        )

    def _postgres(self) -> ChildSpec:
        place = self._place
        return ChildSpec(
            id="postgres",
            type=ChildType.COMMAND,
            start="services.data.embedded:prepare_postgres",
            settings=addressing.embedded_settings(
                self._config,
                state_dir=place.state_dir,
                run_dir=place.run_dir,
                node_user=place.node_user,
            ),
            level="data",
            phase=phases.DATABASE,
            failure=FailureClass.CRITICAL,
            depends_on=(),
            liveness=None,
            stop_signal="SIGINT",  # fast: open transactions are rolled back
            shutdown_s=10.0,
            start_timeout_s=300.0,  # initdb on a slow card, or a long log to replay after a crash
            user=self._config.system.service_user if place.is_root else "",
        )

    def _redis(self) -> ChildSpec:
        place = self._place
        return ChildSpec(
            id="redis",
            type=ChildType.COMMAND,
            start="services.data.embedded:prepare_redis",
            settings={
                "directory": str(place.state_dir / "redis"),
                "socket": str(self._redis_socket),
            },
            level="data",
            phase=phases.DATABASE,
            failure=FailureClass.DEGRADED,
            depends_on=(),
            liveness=None,
            user=self._config.system.service_user if place.is_root else "",
        )

    def _database(self) -> ChildSpec:
        platform = self._config.platform
        return ChildSpec(
            id="database",
            start="services.data.database_service:DatabaseService",
            settings={
                "node_id": platform.node_id,
                "environment": self._config.environment,
                "roles": [role.value for role in platform.roles],
                "postgres": self._postgres_settings(),
            },
            level="data",
            phase=phases.DATABASE,
            failure=FailureClass.CRITICAL,
            depends_on=("postgres",) if self._is_embedded else (),
            start_timeout_s=90.0,  # five attempts with their pauses, and the migrations
            preload=("psycopg", "psycopg_pool", "services.data.database_service"),
        )

    def _cache(self) -> ChildSpec:
        settings = addressing.redis_settings(self._config, self._redis_socket)
        return ChildSpec(
            id="cache",
            start="services.data.cache_service:CacheService",
            settings={"node_id": self._config.platform.node_id, "redis": settings},
            level="data",
            phase=phases.DATABASE,
            failure=FailureClass.DEGRADED,
            depends_on=("redis",) if self._is_embedded else (),
            preload=("redis.asyncio", "services.data.cache_service"),
        )

    @property
    def _redis_socket(self) -> Path:
        return self._place.run_dir / "redis" / "redis.sock"

    def _postgres_settings(self) -> dict[str, Plain]:
        return addressing.postgres_settings(self._config, self._place.run_dir)

    # -- phase 4 --------------------------------------------------------------------------------

    def _security(self) -> ChildSpec:
        encryption = self._config.security.encryption
        return ChildSpec(
            id="security",
            start="services.security.service:SecurityService",
            settings={
                "state_dir": str(self._place.state_dir),
                "node_id": self._config.platform.node_id,
                "postgres": self._postgres_settings(),
                "has_policy": self._config.security.zero_trust.enabled,
                **self._audit_settings(),
                "encryption": {
                    "rotation_interval_s": encryption.key_rotation_interval,
                    "master_key": encryption.master_key,
                },
                "credentials": [to_wire(it) for it in tls_files(self._config)],
                **({} if self._secrets is None else {"secrets": to_wire(self._secrets)}),
            },
            level="security",
            phase=phases.CORE,
            failure=FailureClass.CRITICAL,
            depends_on=("data",),
            start_timeout_s=60.0,
            preload=("psycopg", "services.security.service"),
        )

    def _audit_settings(self) -> dict[str, Plain]:
        audit = self._config.security.audit
        directory = audit.checkpoint_dir
        return {
            "audit_enabled": audit.enabled,
            "audit_retention_days": audit.retention_days,
            "audit_checkpoint_dir": "" if directory is None else str(directory),
            "audit_checkpoint_syslog": audit.checkpoint_syslog,
        }

    def _core(self) -> ChildSpec:
        children = [self._network(), self._vm()]
        if self._config.dwcp.enabled:
            children.append(self._dwcp())
        return ChildSpec(
            id="core",
            type=ChildType.SUPERVISOR,
            level="core",
            phase=phases.CORE,
            failure=FailureClass.CRITICAL,
            depends_on=("security",),
            shutdown_s=None,
            preload=("services.network.service", "services.vm.service"),
            children=self._supervisor_spec(
                RestartStrategy.ONE_FOR_ONE, children, templates=(self._dnsmasq(),)
            ),
        )

    def _network(self) -> ChildSpec:
        bridge = self._config.network.bridge
        address = None if bridge.address is None else str(bridge.address)
        return ChildSpec(
            id="network",
            start="services.network.service:NetworkService",
            settings={
                "node_id": self._config.platform.node_id,
                "bridge": {"enabled": bridge.enabled, "name": bridge.name, "address": address},
                "state_dir": str(self._place.state_dir),
                "log_dir": str(self._config.system.log_path),
            },
            level="network",
            phase=phases.CORE,
            failure=FailureClass.CRITICAL,
            depends_on=(),
            preload=("services.network.service",),
        )

    def _dnsmasq(self) -> ChildSpec:
        """What the network service has the supervisor add, one per network that needs it."""
        return ChildSpec(
            id="dnsmasq",
            type=ChildType.COMMAND,
            start="services.network.serving.command:prepare",
            settings={"state_dir": str(self._place.state_dir)},
            readiness=Readiness(kind=ReadinessKind.LOG, pattern=_DNSMASQ_READY),
            level="network",
            phase=phases.CORE,
            failure=FailureClass.DEGRADED,
            depends_on=(),
            liveness=None,
            start_timeout_s=15.0,  # an address of IPv6 is looked for on the link first
        )

    def _vm(self) -> ChildSpec:
        return ChildSpec(
            id="vm",
            start="services.vm.service:VmService",
            settings=vm_settings(
                self._config, state_dir=self._place.state_dir, postgres=self._postgres_settings()
            ),
            level="vm",
            phase=phases.CORE,
            failure=FailureClass.CRITICAL,
            depends_on=(),
            preload=(
                "services.vm.service",
                "services.vm.libvirt_adapter",
                "services.vm.autostart.order",
                "services.vm.autostart.memory",
            ),
        )

    def _dwcp(self) -> ChildSpec:
        cpus = transport_cpus(self._config, self._place.cpus)
        names = tuple(f"transport.{number}" for number in range(len(cpus)))
        children = [self._dwcp_manager(names)]
        children += [self._transport(name, cpu) for name, cpu in zip(names, cpus, strict=True)]
        return ChildSpec(
            id="dwcp",
            type=ChildType.SUPERVISOR,
            level="dwcp",
            phase=phases.CORE,
            failure=FailureClass.CRITICAL,
            depends_on=("network",),
            shutdown_s=None,
            children=self._supervisor_spec(RestartStrategy.ONE_FOR_ONE, children),
        )

    def _dwcp_manager(self, transports: tuple[str, ...]) -> ChildSpec:
        transport, compression = self._config.dwcp.transport, self._config.dwcp.compression
        return ChildSpec(
            id="manager",
            start="services.dwcp.manager:ManagerService",
            settings={
                "run_dir": str(self._place.run_dir),
                "incoming_dir": str(self._incoming_dir),
                "host": transport.host,
                "port": transport.port,
                "transports": list(transports),
                "min_streams": transport.min_streams,
                "initial_streams": transport.initial_streams,
                "max_streams": transport.max_streams,
                "congestion": transport.congestion_algorithm.value,
                "compression": compression.enabled,
                "level": compression.level.value,
            },
            level="dwcp",
            phase=phases.CORE,
            failure=FailureClass.CRITICAL,
            depends_on=(),
            preload=("services.dwcp.manager",),
        )

    def _transport(self, name: str, cpu: int | None) -> ChildSpec:
        return ChildSpec(
            id=name,
            type=ChildType.LOOP,
            start="services.dwcp.transport:TransportService",
            settings={
                "run_dir": str(self._place.run_dir),
                "incoming_dir": str(self._incoming_dir),
                "congestion": self._config.dwcp.transport.congestion_algorithm.value,
            },
            level="dwcp",
            phase=phases.CORE,
            failure=FailureClass.RECOVERABLE,
            depends_on=(),
            cpus=() if cpu is None else (cpu,),
            preload=("services.dwcp.transport",),
        )

    @property
    def _incoming_dir(self) -> Path:
        return self._place.state_dir / "dwcp" / "incoming"

    # -- phases 6 and 5 -------------------------------------------------------------------------

    def _api(self, *, after: str) -> ChildSpec:
        api, role = self._config.api, self._config.api.auth.anonymous_role
        return ChildSpec(
            id="api",
            start="services.api.service:ApiService",
            settings={
                "host": api.host,
                "port": api.port,
                "cert_file": _text(api.tls.cert_file),
                "key_file": _text(api.tls.key_file),
                "client_ca_file": _text(api.tls.client_ca_file),
                "anonymous_role": "" if role is None else role.value,
                "cors_enabled": api.cors.enabled,
                "allowed_origins": list(api.cors.allowed_origins),
                "rate_limit_enabled": api.rate_limit.enabled,
                "requests_per_minute": api.rate_limit.requests_per_minute,
                "version": self._config.platform.version,
            },
            level="api",
            phase=phases.HEALTH,
            failure=FailureClass.CRITICAL,
            depends_on=(after,),
            preload=(
                "pydantic",
                "starlette.applications",
                "fastapi",
                "uvicorn",
                "uvicorn.lifespan.off",
                "services.api.service",
            ),
        )

    def _optional(self, *, after: str) -> ChildSpec:
        return ChildSpec(
            id="optional",
            type=ChildType.SUPERVISOR,
            level="optional",
            phase=phases.OPTIONAL,
            failure=FailureClass.DEGRADED,
            depends_on=(after,),
            shutdown_s=None,
            children=self._supervisor_spec(RestartStrategy.ONE_FOR_ONE, [self._workload()]),
        )

    def _workload(self) -> ChildSpec:
        return ChildSpec(
            id="workload",
            start="services.optional.workload.service:WorkloadService",
            settings={
                "node_id": self._config.platform.node_id,
                "sample_interval_s": self._config.optional.workload.sample_interval,
                "domains_enabled": self._has_backend,
                "postgres": self._postgres_settings(),
            },
            level="optional",
            phase=phases.OPTIONAL,
            failure=FailureClass.DEGRADED,
            depends_on=(),
            preload=("psycopg", "services.optional.workload.service"),
        )


def _text(path: Path | None) -> str:
    return "" if path is None else str(path)
