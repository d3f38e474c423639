"""What values must fulfil together, and what the host must offer for them: pure functions.

A broken rule names the keys that take part, the one that was set last first in the error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from protocol.messages.access import Role as AccessRole
from services.config.host import HostFacts
from services.config.kinds import ConsensusAlgorithm, DatabaseMode, SslMode
from services.config.model import Config
from services.config.rules_secrets import secret_rules

# libpq never speaks TLS on a Unix socket, whatever sslmode says; these three allow for that.
_SSL_MODES_WITHOUT_TLS = (SslMode.DISABLE, SslMode.ALLOW, SslMode.PREFER)


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that does not hold.

    Attributes:
        keys: dotted keys that take part; at least one.
        expected: the rule, in terms of the keys.
    """

    keys: tuple[str, ...]
    expected: str


def broken_rules(config: Config, host: HostFacts) -> tuple[Broken, ...]:
    """Check every rule.

    Args:
        config: values that are valid each by itself.
        host: what this host offers.
    """
    return (
        *_ports(config),
        *_pool(config),
        *_ssl(config),
        *_ssl_files(config),
        *_redis(config),
        *_streams(config),
        *_transport_host(config, host),
        *_quorum(config),
        *_origins(config),
        *_api_tls(config),
        *_api_anonymous(config),
        *_directories(config),
        *(Broken(keys, expected) for keys, expected in secret_rules(config)),
    )


def quorum_size(algorithm: ConsensusAlgorithm, cluster_size: int) -> int | None:
    """The quorum that a cluster needs; None where the algorithm has none.

    Raft needs a majority. The Byzantine quorum lets any two quorums share an honest member among
    n members of which f = (n - 1) // 3 lie: (n + f) // 2 + 1, which is 2f + 1 for n = 3f + 1. For
    other n, 2f + 1 would be too few (two quorums of 3 among 5 may share only the liar).
    """
    if algorithm is ConsensusAlgorithm.RAFT:
        return cluster_size // 2 + 1
    if algorithm is ConsensusAlgorithm.BYZANTINE:
        return (cluster_size + (cluster_size - 1) // 3) // 2 + 1
    return None


def _ports(config: Config) -> Iterator[Broken]:
    owners: dict[int, str] = {}
    for key, port in (
        ("api.port", config.api.port),
        ("monitoring.metricsPort", config.monitoring.metrics_port),
        ("monitoring.healthCheckPort", config.monitoring.health_check_port),
        ("dwcp.transport.port", config.dwcp.transport.port),
    ):
        if port in owners:
            yield Broken((owners[port], key), "a port of its own for each")
        owners.setdefault(port, key)


def _pool(config: Config) -> Iterator[Broken]:
    postgres = config.database.postgres
    if postgres.max_idle_conns > postgres.pool_size:
        keys = ("database.postgres.maxIdleConns", "database.postgres.poolSize")
        yield Broken(keys, "at most poolSize idle connections")


def _ssl(config: Config) -> Iterator[Broken]:
    postgres = config.database.postgres
    if postgres.ssl_mode in _SSL_MODES_WITHOUT_TLS:
        return
    modes = ", ".join(mode.value for mode in _SSL_MODES_WITHOUT_TLS)
    if config.database.mode is DatabaseMode.EMBEDDED:
        keys = ("database.postgres.sslMode", "database.mode")
        yield Broken(keys, f"one of {modes} in the embedded mode, which has no TLS")
    elif postgres.host.startswith("/"):
        keys = ("database.postgres.sslMode", "database.postgres.host")
        yield Broken(keys, f"one of {modes} on a Unix socket, which has no TLS")


def _ssl_files(config: Config) -> Iterator[Broken]:
    postgres = config.database.postgres
    if (postgres.ssl_cert is None) != (postgres.ssl_key is None):
        keys = ("database.postgres.sslCert", "database.postgres.sslKey")
        yield Broken(keys, "both files or neither")


def _redis(config: Config) -> Iterator[Broken]:
    redis, tls = config.database.redis, config.database.redis.tls
    section = "database.redis"
    if redis.user is not None and redis.password is None:
        yield Broken((f"{section}.user", f"{section}.password"), "a password for the user")
    if (tls.cert_file is None) != (tls.key_file is None):
        yield Broken((f"{section}.tls.certFile", f"{section}.tls.keyFile"), "both files or neither")
    if tls.enabled and config.database.mode is DatabaseMode.EMBEDDED:
        keys = (f"{section}.tls.enabled", "database.mode")
        yield Broken(keys, "false in the embedded mode, which has no TLS")
    files = {"caFile": tls.ca_file, "certFile": tls.cert_file, "keyFile": tls.key_file}
    for name, file in files.items():
        if file is not None and not tls.enabled:
            keys = (f"{section}.tls.{name}", f"{section}.tls.enabled")
            yield Broken(keys, "tls.enabled for a file of TLS to be used")


def _streams(config: Config) -> Iterator[Broken]:
    streams = config.dwcp.transport
    section = "dwcp.transport"
    if streams.min_streams > streams.max_streams:
        keys = (f"{section}.minStreams", f"{section}.maxStreams")
        yield Broken(keys, "minStreams of at most maxStreams")
        return
    if streams.initial_streams < streams.min_streams:
        keys = (f"{section}.initialStreams", f"{section}.minStreams")
        yield Broken(keys, "initialStreams of at least minStreams")
    if streams.initial_streams > streams.max_streams:
        keys = (f"{section}.initialStreams", f"{section}.maxStreams")
        yield Broken(keys, "initialStreams of at most maxStreams")


def _transport_host(config: Config, host: HostFacts) -> Iterator[Broken]:
    transport = config.dwcp.transport
    if transport.enable_rdma and not host.rdma_devices:
        yield Broken(("dwcp.transport.enableRDMA",), "false: this host has no RDMA device")
    if transport.cpus and transport.processes not in (0, len(transport.cpus)):
        keys = ("dwcp.transport.processes", "dwcp.transport.cpus")
        yield Broken(keys, "as many processes as cpus, or 0 to follow them")
    if host.cpus is not None and (missing := set(transport.cpus) - host.cpus):
        names = ", ".join(map(str, sorted(missing)))
        yield Broken(("dwcp.transport.cpus",), f"CPUs that are online, which {names} are not")


def _quorum(config: Config) -> Iterator[Broken]:
    consensus = config.dwcp.consensus
    size = consensus.cluster_size
    keys = (
        "dwcp.consensus.quorumSize",
        "dwcp.consensus.clusterSize",
        "dwcp.consensus.algorithm",
    )
    if consensus.algorithm is ConsensusAlgorithm.BYZANTINE and size < 4:
        yield Broken(keys[1:], "at least 4 members to bear one that lies (3f + 1)")
        return
    needed = quorum_size(consensus.algorithm, size)
    if needed is not None and consensus.quorum_size != needed:
        yield Broken(keys, f"a quorum of {needed} among {size} members")
    elif consensus.quorum_size > size:
        yield Broken(keys[:2], "at most clusterSize members")


def _origins(config: Config) -> Iterator[Broken]:
    origins = config.api.cors.allowed_origins
    if "*" in origins and len(origins) > 1:
        yield Broken(("api.cors.allowedOrigins",), "either * alone or a list of origins")


def _api_tls(config: Config) -> Iterator[Broken]:
    tls = config.api.tls
    if (tls.cert_file is None) != (tls.key_file is None):
        yield Broken(("api.tls.certFile", "api.tls.keyFile"), "both files or neither")
    elif tls.client_ca_file is not None and tls.cert_file is None:
        keys = ("api.tls.clientCaFile", "api.tls.certFile")
        yield Broken(keys, "certFile and keyFile too, since client certificates need TLS")


def _api_anonymous(config: Config) -> Iterator[Broken]:
    role = config.api.auth.anonymous_role
    if role is not None and role is not AccessRole.VIEWER:
        yield Broken(("api.auth.anonymousRole",), "viewer or null: whoever acts says who they are")


def _directories(config: Config) -> Iterator[Broken]:
    if config.system.log_dir == config.system.data_dir:
        yield Broken(("system.logDir", "system.dataDir"), "two different directories")
