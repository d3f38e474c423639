"""The rules of preflight, each with the last value that passes and the first that does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.node.errors import PreflightError
from services.node.facts import (
    AccountFacts,
    DirectoryFacts,
    HostFacts,
    NodeFacts,
    PortFacts,
    PortState,
)
from services.node.preflight import MIB, Finding, Outcome, judge_host, judge_node, require

OK, WARNING, FAILED = Outcome.OK, Outcome.WARNING, Outcome.FAILED

HOST = HostFacts(
    python=(3, 11, 2),
    memory_available_bytes=4096 * MIB,
    memory_limit_bytes=None,
    processes_max=None,
    open_files_max=1024,
    has_kvm=True,
    may_open_kvm=True,
    has_net_admin=True,
    euid=0,
)
STATE = DirectoryFacts(
    path="/var/lib/novacron",
    existing="/var/lib/novacron",
    is_directory=True,
    is_writable=True,
    is_read_only=False,
    free_bytes=1024 * MIB,
)
ACCOUNT = AccountFacts(
    user="novacron-data", group="novacron", user_id=999, has_group=True, is_member=False
)
PORT = PortFacts(key="api.port", host="127.0.0.1", port=8080, state=PortState.FREE)
NODE = NodeFacts(
    euid=0,
    embedded=True,
    state=STATE,
    logs=replace(STATE, path="/var/lib/novacron/logs"),
    ports=(PORT,),
    account=ACCOUNT,
    programs=frozenset({"postgres", "redis-server"}),
)


def _of(findings: tuple[Finding, ...], name: str) -> Finding:
    (found,) = (finding for finding in findings if finding.name == name)
    return found


def test_a_good_host_passes() -> None:
    """Nothing is said against a host that has everything, and each check reports once."""
    findings = judge_host(HOST)

    assert {finding.outcome for finding in findings} == {OK}
    assert len({finding.name for finding in findings}) == len(findings) == 7
    require(findings)


@pytest.mark.parametrize(
    ("name", "change", "outcome", "said"),
    [
        ("interpreter", {"python": (3, 11, 0)}, OK, "Python 3.11.0"),
        ("interpreter", {"python": (3, 10, 99)}, FAILED, "Python 3.10.99"),
        ("interpreter", {"python": (4, 0, 0)}, OK, "Python 4.0.0"),
        ("memory", {"memory_available_bytes": 512 * MIB}, OK, "512 MiB available"),
        ("memory", {"memory_available_bytes": 512 * MIB - 1}, FAILED, "511 MiB available"),
        ("memory", {"memory_available_bytes": None}, WARNING, "/proc/meminfo"),
        ("memory-limit", {"memory_limit_bytes": 512 * MIB}, OK, "512 MiB"),
        ("memory-limit", {"memory_limit_bytes": 512 * MIB - 1}, FAILED, "511 MiB"),
        ("processes", {"processes_max": 64}, OK, "64 processes"),
        ("processes", {"processes_max": 63}, FAILED, "63 processes"),
        ("open-files", {"open_files_max": 1024}, OK, "1024"),
        ("open-files", {"open_files_max": 1023}, WARNING, "1023"),
        ("kvm", {"has_kvm": False, "may_open_kvm": False}, WARNING, "missing"),
        ("kvm", {"may_open_kvm": False}, WARNING, "may not be opened"),
        ("network-admin", {"has_net_admin": False}, WARNING, "the bridge is skipped"),
    ],
)
def test_a_rule_of_the_host(name: str, change: dict[str, Any], outcome: Outcome, said: str) -> None:
    """Each rule trips at its limit, not before, says what was found, and touches no other."""
    findings = judge_host(replace(HOST, **change))

    found = _of(findings, name)
    assert (found.outcome, said in found.detail) == (outcome, True), found
    assert bool(found.hint) is (outcome is not OK)
    assert {finding.outcome for finding in findings if finding is not found} == {OK}


def test_a_good_node_passes() -> None:
    """A configuration that fits the host passes."""
    findings = judge_node(NODE)

    assert {finding.outcome for finding in findings} == {OK}
    require(findings)


@pytest.mark.parametrize(
    ("change", "outcome", "said"),
    [
        ({"is_read_only": True, "is_writable": False}, FAILED, "read-only filesystem"),
        ({"is_writable": False}, FAILED, "not writable"),
        ({"is_directory": False}, FAILED, "no directory"),
        ({"existing": "/var/lib"}, OK, "writable"),
        ({"existing": "/var/lib", "is_writable": False}, FAILED, "/var/lib, above /var/lib/nova"),
    ],
)
def test_a_rule_of_the_state_directory(change: dict[str, Any], outcome: Outcome, said: str) -> None:
    """A state directory that can't be used fails, for the log directory it is a warning."""
    directory = replace(STATE, **change)

    state = _of(judge_node(replace(NODE, state=directory)), "state-directory")
    logs = _of(judge_node(replace(NODE, logs=directory)), "log-directory")

    assert (state.outcome, said in state.detail) == (outcome, True), state
    assert logs.outcome is (WARNING if outcome is FAILED else OK)


@pytest.mark.parametrize(
    ("free_bytes", "outcome"),
    [(64 * MIB, OK), (64 * MIB - 1, FAILED), (0, FAILED), (None, WARNING)],
)
def test_free_disk(free_bytes: int | None, outcome: Outcome) -> None:
    """64 MiB are enough, a byte less is not."""
    findings = judge_node(replace(NODE, state=replace(STATE, free_bytes=free_bytes)))

    assert _of(findings, "disk").outcome is outcome


@pytest.mark.parametrize(
    ("change", "outcome", "said"),
    [
        ({"state": PortState.USED}, FAILED, "port 8080 of 127.0.0.1 is used"),
        (
            {"state": PortState.USED, "holder_pid": 42, "holder_name": "nginx"},
            FAILED,
            "is used by process 42 (nginx)",
        ),
        ({"state": PortState.DENIED, "port": 80}, FAILED, "not allowed"),
        ({"state": PortState.NO_ADDRESS}, FAILED, "127.0.0.1 is no address of this host"),
        ({"state": PortState.UNKNOWN, "host": "node.example"}, OK, "node.example"),
    ],
)
def test_a_rule_of_a_port(change: dict[str, Any], outcome: Outcome, said: str) -> None:
    """The finding is named by the key, and tells port, address and holder."""
    found = _of(judge_node(replace(NODE, ports=(replace(PORT, **change),))), "api.port")

    assert (found.outcome, said in found.detail) == (outcome, True), found
    assert outcome is OK or "api.port" in found.hint


@pytest.mark.parametrize(
    ("name", "change", "outcome", "said"),
    [
        ("service-user", {"user_id": None}, FAILED, "adduser --system"),
        ("service-user", {"user_id": 0}, FAILED, "system.serviceUser"),
        ("service-user", {"is_member": True}, WARNING, "gpasswd --delete novacron-data novacron"),
        ("service-user", {"is_member": True, "is_primary": True}, WARNING, "system.serviceUser"),
        ("service-user", {"is_member": True, "blocked_at": "/root"}, FAILED, "chmod o+x /root"),
        ("service-user", {"blocked_at": "/root"}, FAILED, "chmod o+x /root"),
        ("group", {"has_group": False}, WARNING, "addgroup --system novacron"),
    ],
)
def test_a_rule_of_the_accounts(
    name: str, change: dict[str, Any], outcome: Outcome, said: str
) -> None:
    """The hint is a command or a key."""
    found = _of(judge_node(replace(NODE, account=replace(ACCOUNT, **change))), name)

    assert (found.outcome, said in found.hint) == (outcome, True), found


def test_accounts_do_not_matter_to_an_ordinary_user() -> None:
    """Without root nothing changes its user, so no account is asked for."""
    nobody = replace(ACCOUNT, user_id=None, has_group=False, is_member=False)

    names = {finding.name for finding in judge_node(replace(NODE, euid=1000, account=nobody))}

    assert not names & {"service-user", "group"}


def test_external_servers_need_no_programs_and_no_service_user() -> None:
    """With servers elsewhere, what they need here is not asked for."""
    external = replace(
        NODE, embedded=False, programs=frozenset(), account=replace(ACCOUNT, user_id=None)
    )

    findings = judge_node(external)

    assert not {finding.name for finding in findings} & {"service-user", "postgres", "redis-server"}
    require(findings)


@pytest.mark.parametrize(
    ("missing", "outcome", "package"),
    [("postgres", FAILED, "postgresql"), ("redis-server", WARNING, "redis-server")],
)
def test_a_missing_program(missing: str, outcome: Outcome, package: str) -> None:
    """PostgreSQL is needed, Redis is not; both hints name Debian's package."""
    found = _of(judge_node(replace(NODE, programs=NODE.programs - {missing})), missing)

    assert found.outcome is outcome
    assert f"apt-get install {package}" in found.hint


def test_require_lists_all_that_failed_and_no_warning() -> None:
    """One error tells everything that has to be repaired."""
    findings = judge_host(
        replace(HOST, memory_available_bytes=0, processes_max=1, has_net_admin=False)
    )

    with pytest.raises(PreflightError) as caught:
        require(findings)

    title, *lines = str(caught.value).splitlines()
    assert title == "preflight failed: 2 problems"
    assert [line.split(":")[0].strip() for line in lines] == ["memory", "processes"]
    assert caught.value.fields["failed"] == ["memory", "processes"]
