"""Who may call what: the compiled policy, and one decision.

Pure: the policy, the caller and the call go in, a decision with its reason comes out.

The rules: what no rule allows is refused. The first rule that matches decides, also whether the
call is recorded before it takes effect; there are no rules that forbid. A process is matched by
its path, a person by ``person:<user name>`` or by ``role:<role>``, and a pattern without such a
prefix never matches a person. ``*`` stands for any text, slashes included, and nothing else is
special.

Wire shape of a compiled policy, one msgpack map::

    enforced  bool; False lets every process and person of the tree call everything
    roles     [[role, [user id, …], [group id, …]], …], from the least to the most powerful
    rules     [[name, [caller, …], [method, …], [process, …], audit], …] in order
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from protocol import names
from protocol.dataclass import dataclass
from protocol.errors import RemoteProtocolError
from protocol.records import Plain

PERSON, ROLE = "person:", "role:"
# Each role may what those before it may.
ROLES = ("viewer", "operator", "admin")


class Decision(NamedTuple):
    """What became of a question.

    Attributes:
        is_allowed: whether the call may go on.
        is_audited: whether it is recorded before it does.
        rule: name of the rule that decided; "" for none.
        reason: why it was refused, for people; "" when it was not.
    """

    is_allowed: bool
    is_audited: bool
    rule: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Who has a role, by numbers of the host's accounts."""

    name: str
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that somebody may do.

    Attributes:
        name: for people.
        callers: patterns of process paths, ``person:`` and ``role:`` ones.
        calls: patterns of method names.
        of: patterns of the process that is called.
        audit: the call is privileged: recorded before it takes effect, or refused.
    """

    name: str
    callers: tuple[str, ...]
    calls: tuple[str, ...]
    of: tuple[str, ...]
    audit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All rules of a tree.

    Attributes:
        rules: in order.
        roles: in the order of ROLES.
        is_enforced: False where every member of the tree may call everything.
    """

    rules: tuple[Rule, ...]
    roles: tuple[Role, ...] = ()
    is_enforced: bool = True


def open_policy(*, is_supervisor: bool) -> Policy:
    """What holds in a tree that has no policy: persons command, processes call services.

    Args:
        is_supervisor: the policy is for calls to a supervisor.
    """
    if not is_supervisor:
        return Policy(
            rules=(Rule(name="open", callers=("*", "person:*"), calls=("*",), of=("*",)),)
        )
    reads = ("status", "journal", "boot")
    return Policy(
        rules=(
            Rule(name="reads", callers=("*",), calls=reads, of=("*",)),
            Rule(name="operators", callers=("person:*",), calls=("*",), of=("*",)),
        )
    )


def roles_of(policy: Policy, uid: int, gids: Collection[int]) -> tuple[str, ...]:
    """The roles of a person, those below the highest one included.

    Args:
        policy: says who has which.
        uid: of the person's process, as the kernel tells it.
        gids: likewise, all of them.
    """
    has = [
        number
        for number, role in enumerate(policy.roles)
        if uid in role.uids or not set(gids).isdisjoint(role.gids)
    ]
    return tuple(role.name for role in policy.roles[: max(has) + 1]) if has else ()


def decide(
    policy: Policy, caller: str, roles: Collection[str], method: str, process: str
) -> Decision:
    """Decide one call.

    Args:
        policy: in force.
        caller: process path, or ``operator/<user name>``, as proved by the key.
        roles: of a person.
        method: that is called.
        process: path of the process that is called.
    """
    person = names.person_of(caller)
    for rule in policy.rules:
        if not _is_about(rule, method, process):
            continue
        is_meant = (
            _matches_any(rule.callers, caller)
            if person is None
            else _is_person(rule, person, roles)
        )
        if is_meant:
            return Decision(True, rule.audit, rule.name, "")  # noqa: FBT003 - its field says what
    who = caller if person is None else f"{person} ({', '.join(roles) or 'no role'})"
    reason = f"no rule of the policy lets {who} call {method} of {process}"
    if not policy.is_enforced:
        is_privileged = any(r.audit and _is_about(r, method, process) for r in policy.rules)
        return Decision(True, is_privileged, "not enforced", "")  # noqa: FBT003 - as above
    return Decision(False, False, "", reason)  # noqa: FBT003 - as above


def matches(pattern: str, text: str) -> bool:
    """Whether a text is what a pattern says; ``*`` stands for any text."""
    if pattern == "*":
        return True
    if "*" not in pattern:
        return pattern == text
    first, *middle, last = pattern.split("*")
    if not text.startswith(first) or len(text) < len(first) + len(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return text.endswith(last)


def to_plain(policy: Policy) -> Plain:
    """The compiled policy as plain values; the module says in which shape."""
    return {
        "enforced": policy.is_enforced,
        "roles": [[role.name, list(role.uids), list(role.gids)] for role in policy.roles],
        "rules": [
            [rule.name, list(rule.callers), list(rule.calls), list(rule.of), rule.audit]
            for rule in policy.rules
        ],
    }


def from_plain(value: Plain) -> Policy:
    """The policy that the root has written.

    Raises:
        RemoteProtocolError: it is none.
    """
    # By hand and not as a record: each process of the tree reads it while the node boots.
    try:
        return Policy(
            rules=tuple(
                Rule(name=name, callers=tuple(who), calls=tuple(what), of=tuple(of), audit=audit)
                for name, who, what, of, audit in value["rules"]
            ),
            roles=tuple(
                Role(name=name, uids=tuple(uids), gids=tuple(gids))
                for name, uids, gids in value["roles"]
            ),
            is_enforced=value["enforced"],
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise RemoteProtocolError(f"not a compiled policy: {exc!r}") from exc


def _is_about(rule: Rule, method: str, process: str) -> bool:
    return _matches_any(rule.calls, method) and _matches_any(rule.of, process)


def _matches_any(patterns: Collection[str], text: str) -> bool:
    # No generator: a decision looks at every rule, and the first one of a call is not cached.
    if text in patterns:
        return ":" not in text  # as a caller, "role:admin" is no process
    for pattern in patterns:
        if "*" in pattern and ":" not in pattern and matches(pattern, text):
            return True
    return False


def _is_person(rule: Rule, person: str, roles: Collection[str]) -> bool:
    for pattern in rule.callers:
        if pattern.startswith(ROLE):
            if pattern[len(ROLE) :] in roles:
                return True
        elif pattern.startswith(PERSON) and matches(pattern[len(PERSON) :], person):
            return True
    return False
