"""Who may call what: patterns, roles, default deny."""

from __future__ import annotations

import time

import pytest

from protocol.errors import RemoteProtocolError
from supervisor.guard.policy import (
    Decision,
    Policy,
    Role,
    Rule,
    decide,
    from_plain,
    matches,
    open_policy,
    roles_of,
    to_plain,
)

RULES = (
    Rule(name="read", callers=("*", "role:viewer"), calls=("status", "*.status"), of=("*",)),
    Rule(name="command", callers=("role:operator",), calls=("stop",), of=("core",), audit=True),
    Rule(name="anna", callers=("person:anna",), calls=("*",), of=("data/*",)),
)
ROLES = (
    Role(name="viewer", gids=(50,)),
    Role(name="operator", uids=(1000,), gids=(60,)),
    Role(name="admin", uids=(0,)),
)
POLICY = Policy(rules=RULES, roles=ROLES)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("core/vm", "core/vm", True),
        ("core/vm", "core/vm2", False),
        ("*", "", True),
        ("core/*", "core/dwcp/manager", True),
        ("core/*", "core", False),
        ("*.status", "dwcp.status", True),
        ("*.status", "status", False),
        ("a*a", "a", False),
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "acb", False),
        ("a*b*b", "ab", False),
        ("a*bc*c", "abc", False),
        ("core.vm", "core/vm", False),
    ],
)
def test_star_is_any_text_and_nothing_else_is_special(
    pattern: str, text: str, expected: bool
) -> None:
    """A pattern says what it looks like."""
    assert matches(pattern, text) is expected


@pytest.mark.parametrize(
    ("caller", "roles", "method", "process", "rule"),
    [
        ("core/vm", (), "dwcp.status", "core/dwcp/manager", "read"),
        ("operator/bert", ("viewer",), "status", "novacron", "read"),
        ("operator/bert", ("viewer", "operator"), "stop", "core", "command"),
        ("operator/anna", (), "anything", "data/cache", "anna"),
    ],
)
def test_matching_rule_allows(
    caller: str, roles: tuple[str, ...], method: str, process: str, rule: str
) -> None:
    """Processes by path, persons by role and name; the decision names the rule."""
    found = decide(POLICY, caller, roles, method, process)

    assert (found.is_allowed, found.rule) == (True, rule)


@pytest.mark.parametrize(
    ("caller", "roles", "method", "process"),
    [
        ("operator/bert", (), "status", "novacron"),  # "*" means processes
        ("core/vm", (), "stop", "core"),
        ("core/vm", ("operator",), "stop", "core"),  # a process has no roles, whatever it says
        ("operator/bert", ("viewer", "operator"), "stop", "data"),
        ("operator/annabel", (), "anything", "data/cache"),
        ("anna", (), "anything", "data/cache"),  # a process of that name is no person
        ("role:operator", (), "stop", "core"),
        ("person:anna", (), "anything", "data/cache"),
    ],
)
def test_everything_else_is_refused_with_a_reason(
    caller: str, roles: tuple[str, ...], method: str, process: str
) -> None:
    """Default deny; the reason names caller, method and process."""
    found = decide(POLICY, caller, roles, method, process)

    assert (found.is_allowed, found.rule) == (False, "")
    for part in (caller.removeprefix("operator/"), method, process):
        assert part in found.reason


def test_first_matching_rule_decides_what_is_recorded() -> None:
    """An earlier rule without audit wins over a later one with it."""
    first = Rule(name="first", callers=("a",), calls=("x",), of=("*",))
    second = Rule(name="second", callers=("*",), calls=("*",), of=("*",), audit=True)
    policy = Policy(rules=(first, second))

    assert decide(policy, "a", (), "x", "p") == Decision(True, False, "first", "")
    assert decide(policy, "b", (), "x", "p") == Decision(True, True, "second", "")


def test_unenforced_policy_allows_and_still_records() -> None:
    """Without zero trust members may call everything, and privileged calls stay recorded."""
    policy = Policy(rules=RULES, roles=ROLES, is_enforced=False)

    stop, other = (decide(policy, "core/vm", (), *call) for call in (("stop", "core"), ("x", "y")))

    assert (stop.is_allowed, stop.is_audited) == (True, True)
    assert (other.is_allowed, other.is_audited) == (True, False)


@pytest.mark.parametrize(
    ("uid", "gids", "roles"),
    [
        (0, (), ("viewer", "operator", "admin")),
        (1000, (50,), ("viewer", "operator")),
        (7, (9, 60), ("viewer", "operator")),
        (7, (50,), ("viewer",)),
        (7, (9,), ()),
    ],
)
def test_role_includes_those_before_it(
    uid: int, gids: tuple[int, ...], roles: tuple[str, ...]
) -> None:
    """A person has the highest role of user and groups, and what lies below."""
    assert roles_of(POLICY, uid, gids) == roles


def test_tree_without_policy_keeps_its_rules() -> None:
    """Services answer every member; supervisors take orders from persons alone."""
    service, supervisor = open_policy(is_supervisor=False), open_policy(is_supervisor=True)

    assert decide(service, "web", (), "count", "counter").is_allowed
    assert decide(service, "operator/anna", (), "count", "counter").is_allowed
    assert decide(supervisor, "web", (), "journal", "novacron").is_allowed
    assert decide(supervisor, "operator/anna", (), "stop", "novacron").is_allowed
    assert not decide(supervisor, "web", (), "stop", "novacron").is_allowed
    assert not decide(supervisor, "web", (), "explain", "novacron").is_allowed


def test_compiled_policy_survives_the_wire() -> None:
    """What the root writes is what a process reads; anything else is refused."""
    assert from_plain(to_plain(POLICY)) == POLICY
    for broken in (None, {}, {"rules": [["x"]], "roles": [], "enforced": True}, {"rules": 3}):
        with pytest.raises(RemoteProtocolError):
            from_plain(broken)


def test_decision_is_quick() -> None:
    """A decision over a long policy takes less than 50 µs, without any cache."""
    rules = tuple(
        Rule(name=f"r{n}", callers=(f"a{n}/*",), calls=(f"m{n}.*", "x"), of=("*",))
        for n in range(20)
    )
    policy = Policy(rules=rules, roles=ROLES)

    best_s = min(_time_of(policy) for _ in range(20))

    assert best_s < 50e-6


def _time_of(policy: Policy) -> float:
    begin_s = time.perf_counter()
    for _ in range(10):
        decide(policy, "core/vm", (), "x", "core")
    return (time.perf_counter() - begin_s) / 10
