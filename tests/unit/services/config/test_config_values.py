"""Each key by itself: what it accepts, what it refuses, and the sentence that says so."""

from __future__ import annotations

import json

import pytest

from protocol.records import Plain
from services.config.errors import ProblemKind
from services.config.keys import KeyKind, key_table

KEYS = key_table().keys


def nested(path: str, value: Plain) -> str:
    """A file that sets one key, with the key on line 1."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return json.dumps(value)


RANGES = {
    "system.maxConcurrency": (1, 64),
    "database.postgres.port": (1, 65535),
    "database.postgres.poolSize": (5, 1000),  # not below maxIdleConns
    "database.postgres.maxIdleConns": (0, 20),  # not above poolSize
    "database.redis.port": (1, 65535),
    "database.redis.database": (0, 15),
    "database.redis.poolSize": (1, 1000),
    "dwcp.transport.port": (1, 65535),
    "dwcp.transport.processes": (0, 64),
    "security.audit.retentionDays": (1, 3650),
    "api.port": (1, 65535),
    "api.rateLimit.requestsPerMinute": (1, 1_000_000),
    "monitoring.metricsPort": (1, 65535),
    "monitoring.healthCheckPort": (1, 65535),
}


@pytest.mark.parametrize("path", RANGES)
def test_a_number_at_the_ends_of_its_range_is_accepted(directory, path: str) -> None:
    """The ends belong to the range."""
    for value in RANGES[path]:
        directory.write(lab=nested(path, value))

        assert directory.load().values()[path] == value


@pytest.mark.parametrize("path", [path for path in RANGES if "Idle" not in path])
def test_a_number_beyond_its_range_is_refused(directory, path: str) -> None:
    """One below and one above are refused, and the range is named."""
    expected = KEYS[path].expected
    low, high = (int(word) for word in expected.split() if word.isdigit())
    for value in (low - 1, high + 1):
        directory.write(lab=nested(path, value))

        problem = directory.problem()

        assert (problem.kind, problem.key) == (ProblemKind.VALUE, path)
        assert (problem.found, problem.expected) == (str(value), expected)


DURATION_RANGES = {
    "system.shutdownTimeout": ("1s", "1h", "999ms", "1h1ms"),
    "database.postgres.connMaxLifetime": ("1s", "7d", "999ms", "7d1ms"),
    "database.postgres.connectTimeout": ("100ms", "5m", "99ms", "301s"),
    "database.postgres.statementTimeout": ("1s", "1h", "999ms", "61m"),
    "database.postgres.lockTimeout": ("100ms", "1h", "99ms", "61m"),
    "database.postgres.idleInTransactionTimeout": ("1s", "1h", "999ms", "61m"),
    "dwcp.prediction.predictionHorizon": ("1s", "24h", "0s", "25h"),
    "security.zeroTrust.maxTrustDuration": ("1m", "7d", "59s", "8d"),
    "security.encryption.keyRotationInterval": ("1h", "365d", "59m", "366d"),
    "security.secrets.timeout": ("100ms", "1m", "99ms", "61s"),
    "security.secrets.bootTimeout": ("1s", "5m", "999ms", "301s"),
    "security.secrets.refreshInterval": ("1s", "24h", "999ms", "25h"),
    "security.secrets.staleFor": ("1s", "30d", "999ms", "31d"),
    "vm.leaseTtl": ("10s", "1h", "9999ms", "61m"),
    "vm.autostart.delay": ("100ms", "1m", "99ms", "61s"),
    "optional.workload.sampleInterval": ("1s", "1h", "999ms", "61m"),
}


@pytest.mark.parametrize("path", DURATION_RANGES)
def test_a_duration_keeps_its_range(directory, path: str) -> None:
    """The ends are accepted, and what lies a little beyond is refused."""
    *accepted, below, above = DURATION_RANGES[path]
    for value in accepted:
        directory.write(lab=nested(path, value))
        assert directory.load().values()[path] == value
    for value in (below, above):
        directory.write(lab=nested(path, value))
        problem = directory.problem()
        assert problem.found == repr(value)
        assert problem.expected == KEYS[path].expected


def test_every_duration_is_in_the_table() -> None:
    """A new duration gets a range test."""
    durations = {path for path, key in KEYS.items() if key.kind is KeyKind.DURATION}

    assert durations == set(DURATION_RANGES)


GOOD = [
    ("platform.name", "Nova Cron 2"),
    ("platform.version", "1.2.3-rc.1"),
    ("platform.nodeId", "rack1.host-7"),
    ("platform.roles", ["orchestration"]),
    ("system.logDir", "/var/log/novacron"),
    ("system.logLevel", "debug"),
    ("system.serviceUser", "_nova-1"),
    ("database.postgres.host", "db_1.example.com."),
    ("database.postgres.host", "10.0.0.1"),
    ("database.postgres.host", "fd00::1"),
    ("database.postgres.password", "p a$$:/@ß"),
    ("database.postgres.sslMode", "verify-full"),
    ("dwcp.transport.cpus", [1, 0]),
    ("dwcp.transport.congestionAlgorithm", "cubic"),
    ("api.host", "::"),
    ("api.cors.allowedOrigins", []),
    ("api.cors.allowedOrigins", ["*"]),
    ("api.cors.allowedOrigins", ["http://localhost:3000", "https://[::1]:8443"]),
    ("network.bridge.name", "br-nova_0.100"),
    ("network.bridge.address", "10.20.0.1/24"),
    ("network.bridge.address", "fd00::1/64"),
    ("vm.libvirtUri", "test:///default"),
    ("vm.libvirtUri", "qemu+unix:///system?socket=/run/x"),
]


@pytest.mark.parametrize(("path", "value"), GOOD)
def test_sound_values_are_accepted(directory, path: str, value: Plain) -> None:
    """The value arrives as it was written."""
    directory.write(lab=nested(path, value))

    found = directory.load().values()[path]

    assert found == ("**********" if KEYS[path].is_secret else value)


BAD = [
    ("environment", "Lab!"),
    ("platform.name", ""),
    ("platform.name", " padded"),
    ("platform.name", "x" * 65),
    ("platform.name", "a\nb"),
    ("platform.version", "1.0"),
    ("platform.version", 1.0),
    ("platform.nodeId", "-node"),
    ("platform.nodeId", "a b"),
    ("platform.nodeId", "x" * 64),
    ("platform.nodeId", 7),
    ("platform.roles", []),
    ("platform.roles", "backend"),
    ("platform.roles", ["backend", "backend"]),
    ("platform.roles", ["frontend"]),
    ("system.dataDir", "var/lib"),
    ("system.dataDir", "/"),
    ("system.dataDir", "/x/.."),
    ("system.dataDir", "/a\0b"),
    ("system.dataDir", None),
    ("system.logLevel", "INFO"),
    ("system.logLevel", "warn"),
    ("system.maxConcurrency", "4"),
    ("system.maxConcurrency", 4.0),
    ("system.maxConcurrency", True),
    ("system.shutdownTimeout", 30),
    ("system.shutdownTimeout", "30"),
    ("system.shutdownTimeout", "30 s"),
    ("system.serviceUser", "Nova"),
    ("system.serviceUser", "x" * 33),
    ("database.mode", "internal"),
    ("database.postgres.host", ""),
    ("database.postgres.host", "a b"),
    ("database.postgres.host", "-x"),
    ("database.postgres.host", "a..b"),
    ("database.postgres.host", "x" * 254),
    ("database.postgres.host", "999.1.1.1"),
    ("database.postgres.host", "1.2.3"),
    ("database.postgres.host", "fe80::1%eth0"),
    ("database.postgres.host", "localhost:5432"),
    ("database.postgres.host", "http://db"),
    ("database.postgres.database", "1x"),
    ("database.postgres.user", "a;b"),
    ("database.postgres.sslMode", True),
    ("database.redis.host", "/run/redis.sock"),
    ("dwcp.enabled", "yes"),
    ("dwcp.enabled", 1),
    ("dwcp.enabled", None),
    ("dwcp.transport.cpus", [-1]),
    ("dwcp.transport.cpus", [0, 0]),
    ("dwcp.transport.cpus", ["0"]),
    ("dwcp.transport.cpus", 0),
    ("dwcp.transport.congestionAlgorithm", "bbr2"),
    ("dwcp.compression.algorithm", "gzip"),
    ("dwcp.compression.level", 3),
    ("security.encryption.algorithm", "aes-256-gcm"),
    ("api.cors.allowedOrigins", ["app.example.com"]),
    ("api.cors.allowedOrigins", ["https://app.example.com/"]),
    ("api.cors.allowedOrigins", ["ftp://app.example.com"]),
    ("api.cors.allowedOrigins", ["null"]),
    ("api.cors.allowedOrigins", ["https://a", "https://a"]),
    ("network.bridge.name", "a" * 16),
    ("network.bridge.name", "a/b"),
    ("network.bridge.name", ".."),
    ("network.bridge.address", "10.20.0.1"),
    ("network.bridge.address", "10.20.0.1/33"),
    ("network.bridge.address", "10.20.0.1/0"),
    ("network.bridge.address", "fd00::1/129"),
    ("network.bridge.address", "10.20.0.300/24"),
    ("vm.libvirtUri", "qemu"),
    ("vm.libvirtUri", "qemu:///a b"),
]


@pytest.mark.parametrize(("path", "value"), BAD)
def test_unsound_values_are_refused_with_the_keys_own_sentence(
    directory, path: str, value: Plain
) -> None:
    """The error has file, line, key, found value and what the key expects."""
    directory.write(lab=nested(path, value))

    problem = directory.problem()

    assert (problem.key, problem.origin.line) == (path, 1)
    assert problem.origin.name == str(directory.path / "config.lab.yaml")
    if path != "environment":
        assert problem.kind is ProblemKind.VALUE
        assert problem.expected == KEYS[path].expected
    assert problem.found
    assert str(problem).startswith(f"{directory.path}/config.lab.yaml:1: {path}: found ")


@pytest.mark.parametrize("value", ["", 12345, True, ["a"]])
def test_a_password_that_is_none_is_refused_unseen(directory, value: Plain) -> None:
    """Even a wrong secret is masked."""
    directory.write(lab=nested("database.redis.password", value))

    problem = directory.problem()

    assert problem.found == "**********"
    assert "12345" not in str(problem)


@pytest.mark.parametrize(
    ("path", "value", "hint"),
    [
        ("system.logLevel", "warn", "did you mean warning?"),
        ("system.logLevel", "INFO", "did you mean info?"),
        ("database.postgres.sslMode", "verify_full", "did you mean verify-full?"),
        ("platform.nodeId", 7, "a text that looks like a number or like true needs quotes"),
        ("platform.name", True, "a text that looks like a number or like true needs quotes"),
    ],
)
def test_the_hint_helps(directory, path: str, value: Plain, hint: str) -> None:
    """A near miss gets the right word, and a number for a text gets quotes."""
    directory.write(lab=nested(path, value))

    assert directory.problem().hint == hint


def test_a_long_value_is_cut_in_the_error(directory) -> None:
    """The sentence stays readable whatever stands in the file."""
    directory.write(lab=nested("platform.name", "x" * 10_000))

    assert len(directory.problem().found) < 80
