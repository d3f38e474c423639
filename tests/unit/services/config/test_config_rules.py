"""Rules between keys, and between keys and the host."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.config.errors import ProblemKind
from services.config.host import HostFacts, read_host
from services.config.kinds import ConsensusAlgorithm
from services.config.rules import quorum_size

TRANSPORT = "dwcp: {transport: {minStreams: %d, initialStreams: %d, maxStreams: %d}}"
CONSENSUS = "dwcp: {consensus: {algorithm: %s, clusterSize: %d, quorumSize: %d}}"

HOLDS = [
    TRANSPORT % (1, 1, 1),
    TRANSPORT % (1, 1024, 1024),
    "database: {postgres: {maxIdleConns: 20, poolSize: 20}}",
    "database: {mode: embedded, postgres: {sslMode: prefer}}",
    "database: {postgres: {sslCert: /c.crt, sslKey: /c.key}}",
    "database: {redis: {user: novacron, password: x}}",
    "database: {redis: {tls: {enabled: true}}}",
    "database: {redis: {tls: {enabled: true, caFile: /ca, certFile: /c, keyFile: /k}}}",
    "database: {mode: external, postgres: {sslMode: disable, host: /run/postgresql}}",
    CONSENSUS % ("raft", 1, 1),
    CONSENSUS % ("raft", 2, 2),
    CONSENSUS % ("raft", 3, 2),
    CONSENSUS % ("raft", 4, 3),
    CONSENSUS % ("byzantine", 4, 3),
    CONSENSUS % ("byzantine", 5, 4),
    CONSENSUS % ("byzantine", 7, 5),
    CONSENSUS % ("gossip", 9, 1),
    CONSENSUS % ("gossip", 9, 9),
    "dwcp: {transport: {cpus: [0, 1], processes: 2}}",
    "dwcp: {transport: {cpus: [1]}}",
    "api: {port: 1}\nmonitoring: {metricsPort: 2, healthCheckPort: 3}",
    "api: {cors: {allowedOrigins: ['*']}}",
    "system: {dataDir: /x, logDir: /x/logs}",
]


@pytest.mark.parametrize("text", HOLDS)
def test_values_that_agree_are_accepted(directory, text: str) -> None:
    """The edge of every rule belongs to what is allowed."""
    directory.write(lab=text)

    directory.load()


BROKEN = [
    (TRANSPORT % (3, 3, 2), "dwcp.transport.minStreams", "3", "minStreams of at most maxStreams"),
    (TRANSPORT % (3, 2, 4), "dwcp.transport.initialStreams", "2", "initialStreams of at least"),
    (TRANSPORT % (3, 5, 4), "dwcp.transport.initialStreams", "5", "initialStreams of at most"),
    (
        "database: {postgres: {maxIdleConns: 21, poolSize: 20}}",
        "database.postgres.maxIdleConns",
        "21",
        "at most poolSize",
    ),
    (
        "database: {mode: embedded, postgres: {sslMode: verify-full}}",
        "database.postgres.sslMode",
        "'verify-full'",
        "one of disable, allow, prefer in the embedded mode",
    ),
    (
        "database: {postgres: {sslMode: require, host: /run/postgresql}}",
        "database.postgres.sslMode",
        "'require'",
        "one of disable, allow, prefer on a Unix socket",
    ),
    (
        "database: {postgres: {sslCert: /etc/novacron/node.crt}}",
        "database.postgres.sslCert",
        "'/etc/novacron/node.crt'",
        "both files or neither",
    ),
    ("database: {redis: {user: ada}}", "database.redis.user", "'ada'", "a password for the user"),
    (
        "database: {redis: {tls: {enabled: true, keyFile: /k}}}",
        "database.redis.tls.keyFile",
        "'/k'",
        "both files or neither",
    ),
    (
        "database: {redis: {tls: {caFile: /ca}}}",
        "database.redis.tls.caFile",
        "'/ca'",
        "tls.enabled for a file of TLS to be used",
    ),
    (
        "database: {mode: embedded, postgres: {sslMode: prefer}, redis: {tls: {enabled: true}}}",
        "database.redis.tls.enabled",
        "true",
        "false in the embedded mode",
    ),
    (CONSENSUS % ("raft", 5, 2), "dwcp.consensus.quorumSize", "2", "a quorum of 3 among 5 members"),
    (CONSENSUS % ("raft", 4, 2), "dwcp.consensus.quorumSize", "2", "a quorum of 3 among 4 members"),
    (CONSENSUS % ("raft", 3, 3), "dwcp.consensus.quorumSize", "3", "a quorum of 2 among 3 members"),
    (CONSENSUS % ("byzantine", 5, 3), "dwcp.consensus.quorumSize", "3", "a quorum of 4 among 5"),
    (CONSENSUS % ("byzantine", 3, 3), "dwcp.consensus.clusterSize", "3", "at least 4 members"),
    (CONSENSUS % ("gossip", 2, 3), "dwcp.consensus.quorumSize", "3", "at most clusterSize members"),
    ("api: {port: 9090}", "api.port", "9090", "a port of its own for each"),
    ("monitoring: {healthCheckPort: 9090}", "monitoring.healthCheckPort", "9090", "a port of its"),
    ("dwcp: {transport: {port: 8081}}", "dwcp.transport.port", "8081", "a port of its own"),
    (
        "dwcp: {transport: {enableRDMA: true}}",
        "dwcp.transport.enableRDMA",
        "true",
        "no RDMA device",
    ),
    ("dwcp: {transport: {cpus: [1, 2]}}", "dwcp.transport.cpus", "[1, 2]", "which 2 are not"),
    (
        "dwcp: {transport: {cpus: [0, 1], processes: 3}}",
        "dwcp.transport.processes",
        "3",
        "as many processes as cpus",
    ),
    (
        "api: {cors: {allowedOrigins: ['*', 'https://a']}}",
        "api.cors.allowedOrigins",
        "['*', 'https://a']",
        "either * alone or a list",
    ),
    ("system: {dataDir: /x, logDir: /x}", "system.logDir", "'/x'", "two different directories"),
]


@pytest.mark.parametrize(("text", "key", "found", "expected"), BROKEN)
def test_values_that_contradict_each_other_are_refused(
    directory, text: str, key: str, found: str, expected: str
) -> None:
    """The error stands at the key that was written last, with its line, value and the rule."""
    directory.write(lab=f"# a comment\n{text}")

    problem = directory.problem()

    assert problem.kind is ProblemKind.RULE
    assert (problem.key, problem.found) == (key, found)
    assert (problem.origin.name, problem.origin.line) == (f"{directory.path}/config.lab.yaml", 2)
    assert expected in problem.expected


def test_the_error_names_the_other_side_with_its_origin(directory) -> None:
    """Where the other value was set is what the operator needs next."""
    directory.write(default="dwcp:\n  transport:\n    minStreams: 20\n", lab="{}")

    problem = directory.problem({"NOVACRON_DWCP_TRANSPORT_MAXSTREAMS": "10"})

    assert str(problem) == (
        "NOVACRON_DWCP_TRANSPORT_MAXSTREAMS: dwcp.transport.maxStreams: found 10, expected "
        "minStreams of at most maxStreams (dwcp.transport.minStreams is 20 "
        f"({directory.path}/config.default.yaml:3))"
    )


def test_an_rdma_device_allows_rdma(directory) -> None:
    """The rule is about the host and not about the key."""
    directory.write(lab="dwcp: {transport: {enableRDMA: true}}")

    loaded = directory.load(host=HostFacts(rdma_devices=("mlx5_0",)))

    assert loaded.config.dwcp.transport.enable_rdma


def test_unknown_cpus_are_no_contradiction(directory) -> None:
    """Where the kernel does not say which CPUs there are, pinning will."""
    directory.write(lab="dwcp: {transport: {cpus: [99]}}")

    directory.load(host=HostFacts(cpus=None))


@given(st.integers(4, 1000))
def test_two_byzantine_quorums_share_an_honest_member(size: int) -> None:
    """Any two quorums overlap in more members than may lie, and the honest alone reach one."""
    liars = (size - 1) // 3
    quorum = quorum_size(ConsensusAlgorithm.BYZANTINE, size)

    assert quorum is not None
    assert 2 * quorum - size > liars
    assert quorum <= size - liars
    if size == 3 * liars + 1:
        assert quorum == 2 * liars + 1


@given(st.integers(1, 1000))
def test_two_raft_quorums_share_a_member(size: int) -> None:
    """The majority is the least number of which any two sets overlap."""
    quorum = quorum_size(ConsensusAlgorithm.RAFT, size)

    assert quorum is not None
    assert 2 * quorum > size >= 2 * (quorum - 1)


def test_the_host_is_read_from_sysfs(tmp_path: Path) -> None:
    """Devices and online CPUs come from the kernel's files."""
    (tmp_path / "class/infiniband/mlx5_0").mkdir(parents=True)
    (tmp_path / "devices/system/cpu").mkdir(parents=True)
    (tmp_path / "devices/system/cpu/online").write_text("0-2,8\n")

    facts = read_host(tmp_path)

    assert facts == HostFacts(("mlx5_0",), frozenset({0, 1, 2, 8}))


def test_a_host_without_the_files_has_nothing(tmp_path: Path) -> None:
    """A missing file is no error."""
    assert read_host(tmp_path) == HostFacts((), None)


def test_this_host_has_a_first_cpu() -> None:
    """The real file is understood."""
    assert 0 in (read_host().cpus or ())
