"""The policy file: what it may say, and how each mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from protocol import names
from services.config.errors import ConfigError
from services.ctl.main import program
from services.policy import host, source
from services.policy.source import Accounts, Source
from supervisor.guard.policy import Decision, decide

SHIPPED = Path(__file__).parents[4] / "etc" / "novacron" / "policy.yaml"
ACCOUNTS = Accounts(
    uid_of={"root": 0, "anna": 1000}.get,
    gid_of={"novacron": 60, "auditors": 61}.get,
    node_uid=5,
    node_gid=60,
)
GOOD = """
version: 1
roles:
  viewer: {groups: [auditors]}
  operator: {users: [anna], groups: ["@node"]}
  admin: {users: ["@node"]}
rules:
  look:
    callers: [role:viewer, "person:b*", core/*]
    calls: [status]
    of: ["*"]
  act:
    callers: [role:operator]
    calls: [stop]
    of: [core]
    audit: true
"""


def compiled(text: str) -> Source:
    """A policy from text."""
    return source.compile_text(text, Path("policy.yaml"), ACCOUNTS)


def problems(text: str) -> str:
    """What is wrong with a text."""
    with pytest.raises(ConfigError) as caught:
        compiled(text)
    return str(caught.value)


def test_accounts_become_numbers() -> None:
    """Names of the host and ``@node`` are looked up once, when the policy is compiled."""
    found = compiled(GOOD)

    assert [(role.name, role.uids, role.gids) for role in found.policy.roles] == [
        ("viewer", (), (61,)),
        ("operator", (1000,), (60,)),
        ("admin", (5,), ()),
    ]
    assert [rule.audit for rule in found.policy.rules] == [False, True]
    assert found.lines == {"look": 8, "act": 12}
    assert found.notes == ()


def test_unknown_account_is_a_note() -> None:
    """A file may name people whom only other hosts have."""
    found = compiled(GOOD.replace("anna", "zoe"))

    assert found.notes == ("policy.yaml: roles.operator.users: this host has no zoe",)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("version: 1", "version: 2", "policy.yaml:2: version: found 2, expected 1"),
        ("version: 1", "", "version: found nothing, expected 1"),
        ("  viewer:", "  guest:", "roles.guest: found this role"),
        ("    calls: [stop]", "", "rules.act.calls: found nothing"),
        ("    audit: true", "    audit: maybe", "rules.act.audit: found 'maybe'"),
        ("    audit: true", "    deny: true", "rules.act.deny: found this key"),
        ("callers: [role:operator]", "callers: [role:boss]", "found 'role:boss'"),
        ("callers: [role:operator]", "callers: [operator/anna]", "expected person:anna"),
        ("callers: [role:operator]", "callers: ['a b']", "rules.act.callers: found 'a b'"),
        ("callers: [role:operator]", "callers: ['person:']", "expected person: and a user"),
        ("calls: [stop]", "calls: stop", "rules.act.calls: found 'stop', expected a list"),
        ("calls: [stop]", "calls: [7]", "rules.act.calls: found 7"),
        ("of: [core]", "of: ['core?']", "rules.act.of: found 'core?'"),
        ("  act:", "  look:", "the key 'look' a second time"),
        ("  act:", "  Act:", "rules.Act: found this name"),
        ("rules:", "rulez:", "did you mean rules?"),
        ('{users: [anna], groups: ["@node"]}', "everybody", "roles.operator: found 'everybody'"),
        ("  act:", "  act: *x", "alias"),
    ],
)
def test_mistake_is_named_by_its_place(old: str, new: str, told: str) -> None:
    """Each mistake is refused as a whole, with file, line, what stands there and what should."""
    said = problems(GOOD.replace(old, new, 1))

    assert told in said
    assert "policy.yaml:" in said


def test_too_many_rules_are_refused() -> None:
    """A policy has a limit that none comes near."""
    rule = "  r{}: {{callers: ['*'], calls: ['*'], of: ['*']}}\n"
    text = "version: 1\nroles: {}\nrules:\n"

    assert "501 rules" in problems(text + "".join(rule.format(n) for n in range(501)))
    assert compiled(text + "".join(rule.format(n) for n in range(500)))


@pytest.mark.parametrize("data", [b"\xff\xfe", b"x" * (source.FILE_BYTES_MAX + 1)])
def test_file_that_is_no_text_is_refused(tmp_path: Path, data: bytes) -> None:
    """Size and encoding are looked at before anything else."""
    file = tmp_path / "policy.yaml"
    file.write_bytes(data)

    with pytest.raises(ConfigError):
        source.read(file, ACCOUNTS)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A policy that was named and is not there does not mean that there is none."""
    with pytest.raises(ConfigError, match="No such file"):
        source.read(tmp_path / "policy.yaml", ACCOUNTS)


PROCESS_CALLS = [
    ("core/vm", "metrics", "telemetry"),
    ("novacron", "metrics", "telemetry"),
    ("telemetry", "status", "novacron"),
    ("telemetry", "journal", "novacron"),
    ("telemetry", "database.status", "data/database"),
    ("telemetry", "cache.status", "data/cache"),
    ("telemetry", "dwcp.status", "core/dwcp/manager"),
    ("data/database", "journal", "novacron"),
    ("data/cache", "journal", "novacron"),
    ("security", "journal", "novacron"),
    ("api", "status", "novacron"),
    ("api", "vm.list", "core/vm"),
    ("api", "token.verify", "security"),
    ("api", "restart", "core"),
    ("core/vm", "audit.append", "security"),
    ("optional/workload", "vm.list", "core/vm"),
    ("core/dwcp/manager", "transfer.send", "core/dwcp/transport.3"),
    ("core/dwcp/manager", "checkpoint.save", "data/database"),
    ("core/vm", "cache.abandon", "data/cache"),
    ("core/vm", "sealed.put", "security"),
    ("api", "secrets.get", "security"),
]


@pytest.mark.parametrize(("caller", "method", "process"), PROCESS_CALLS)
def test_shipped_policy_allows_what_the_node_does(caller: str, method: str, process: str) -> None:
    """Every call between processes of a node has a rule."""
    assert _shipped(caller, (), method, process).is_allowed


@pytest.mark.parametrize(
    ("caller", "method", "process"),
    [
        ("core/vm", "restart", "core"),
        ("telemetry", "stop", "novacron"),
        ("api", "add", "core"),
        ("api", "trace", "core"),
        ("core/vm", "transfer.send", "core/dwcp/transport.0"),
        ("core/vm", "dwcp.send", "core/dwcp/manager"),
        ("core/vm", "identity.revoke", "novacron"),
        ("core/vm", "token.create", "security"),
        ("optional/workload", "audit.verify", "security"),
        ("api", "keys.rotate", "security"),
    ],
)
def test_shipped_policy_refuses_the_rest(caller: str, method: str, process: str) -> None:
    """What no process needs to do is refused."""
    assert not _shipped(caller, (), method, process).is_allowed


@pytest.mark.parametrize(
    ("role", "method", "process", "is_allowed", "is_audited"),
    [
        ("viewer", "status", "novacron", True, False),
        ("viewer", "explain", "core", True, False),
        ("viewer", "dwcp.status", "core/dwcp/manager", True, False),
        ("viewer", "restart", "core", False, False),
        ("viewer", "trace", "core", False, False),
        ("operator", "restart", "core", True, True),
        ("operator", "dwcp.send", "core/dwcp/manager", True, True),
        ("operator", "trace", "core", True, False),
        ("operator", "identity.revoke", "novacron", False, False),
        ("operator", "delete", "core", False, False),
        ("operator", "keys.rotate", "security", False, False),
        ("operator", "token.create", "security", False, False),
        ("viewer", "token.list", "security", False, False),
        ("operator", "audit.tail", "security", True, False),
        ("operator", "audit.export", "security", True, True),
        ("operator", "segments.plan", "core/network", True, False),
        ("operator", "segments.apply", "core/network", False, False),
        ("admin", "segments.apply", "core/network", True, True),
        ("admin", "secrets.list", "security", True, False),
        ("admin", "secrets.rotate", "security", True, True),
        ("admin", "audit.export", "security", True, True),
        ("admin", "identity.revoke", "novacron", True, True),
        ("admin", "keys.rotate", "security", True, True),
        ("admin", "status", "novacron", True, False),
    ],
)
def test_shipped_roles(
    role: str, method: str, process: str, is_allowed: bool, is_audited: bool
) -> None:
    """Viewers look, operators command, admins do the rest; what changes something is recorded."""
    roles = ("viewer", "operator", "admin")
    held = roles[: roles.index(role) + 1]

    found = _shipped(names.person_path("anna"), held, method, process)

    assert found.is_allowed is is_allowed
    if is_allowed:
        assert found.is_audited is is_audited


def test_unaudited_node_records_nothing() -> None:
    """Without the audit log there is nothing to record calls in."""
    found = host.load(SHIPPED, group="novacron", is_enforced=True, is_audited=False)

    assert not any(rule.audit for rule in found.policy.rules)


def test_policy_test_names_the_rule() -> None:
    """The command prints the rule that decides, and ends with 4 where there is none."""
    runner = CliRunner()

    allowed = runner.invoke(
        program, ["policy", "test", "role:operator", "restart", "core", "-f", str(SHIPPED)]
    )
    refused = runner.invoke(
        program, ["policy", "test", "core/vm", "restart", "core", "-f", str(SHIPPED)]
    )

    assert allowed.exit_code == 0
    assert "allowed by the rule commands (line " in allowed.output
    assert "recorded ahead" in allowed.output
    assert refused.exit_code == 4
    assert refused.output == "refused: no rule of the policy lets core/vm call restart of core\n"


def test_policy_check_ends_with_2_on_a_mistake(tmp_path: Path) -> None:
    """A broken file is told with its lines; a good one by its number of rules."""
    file = tmp_path / "policy.yaml"
    file.write_text("version: 1\nroles: {}\nrules: {x: {calls: [a]}}\n")
    runner = CliRunner()

    broken = runner.invoke(program, ["policy", "check", str(file)])
    good = runner.invoke(program, ["policy", "check", str(SHIPPED)])
    shown = runner.invoke(program, ["policy", "show", "-f", str(SHIPPED), "--json"])

    assert broken.exit_code == 2
    assert "rules.x.callers: found nothing" in broken.output
    assert (good.exit_code, shown.exit_code) == (0, 0)
    assert "no mistakes" in good.output


def _shipped(caller: str, roles: tuple[str, ...], method: str, process: str) -> Decision:
    return decide(source.read(SHIPPED, ACCOUNTS).policy, caller, roles, method, process)
