"""Whose messages count, and which calls may go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol import codec
from protocol.errors import RemoteProtocolError
from protocol.transports import identities
from protocol.transports.curve import client_pair, raw_key
from protocol.transports.identities import Epoch, Identity, boottime_s
from supervisor.guard import guard as guards
from supervisor.guard.guard import Guard
from supervisor.guard.issuer import Issuer
from supervisor.guard.own_keys import OwnKeys
from supervisor.guard.policy import Policy, Role, Rule, to_plain

POLICY = Policy(
    rules=(
        Rule(name="vm", callers=("core/vm",), calls=("x",), of=("core",)),
        Rule(name="ops", callers=("role:operator",), calls=("*",), of=("*",), audit=True),
    ),
    roles=(Role(name="viewer"), Role(name="operator", gids=(60,)), Role(name="admin")),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with a policy."""
    identities.prepare(tmp_path)
    guards.write_policy(tmp_path, codec.encode(to_plain(POLICY)))
    return tmp_path


def issued(run: Path, name: str, *, life_s: float = 600.0, **more: object) -> str:
    """The user id of new keys."""
    pair = client_pair(name.encode().ljust(32), 0)
    identity = Identity(name=name, expires_s=boottime_s() + life_s, **more)  # type: ignore[arg-type] # fields of any kind
    identities.issue(run, pair.public, identity)
    return raw_key(pair.public).hex()


def guard_of(run: Path, path: str = "core") -> Guard:
    """The guard of a process in a tree with a policy."""
    return Guard(run, path, has_policy=True, is_supervisor=True)


def test_allowed_call_names_caller_and_rule(run: Path) -> None:
    """The verdict says who calls, what allows it, and whether it is recorded."""
    vm, anna = issued(run, "core/vm"), issued(run, "operator/anna", uid=7, gids=(60,))
    guard = guard_of(run)

    by_process, by_person = guard.judge(vm, "x"), guard.judge(anna, "restart")

    assert by_process[:4] == ("core/vm", "", False, "vm")
    assert by_person[:4] == ("operator/anna", "", True, "ops")


@pytest.mark.parametrize(
    ("user_id", "code"),
    [("00" * 32, guards.EXPIRED), ("../policy", guards.EXPIRED), ("", guards.EXPIRED)],
)
def test_unknown_key_counts_for_nothing(run: Path, user_id: str, code: str) -> None:
    """What is no identity is refused, whatever it looks like."""
    guard = guard_of(run)

    assert guard.judge(user_id, "x").code == code
    assert guard.identify(user_id) is None
    assert not guard.admit(user_id)


def test_expired_identity_counts_for_nothing(run: Path) -> None:
    """Its time is looked at for each message, also of one that was good before."""
    user_id = issued(run, "core/vm", life_s=-1.0)

    verdict = guard_of(run).judge(user_id, "x")

    assert (verdict.code, verdict.reason) == (
        guards.EXPIRED,
        "the identity of core/vm has expired",
    )


def test_revocation_counts_from_the_next_message(run: Path) -> None:
    """Once the counter has advanced, what was believed is looked up again."""
    user_id, guard, epoch = issued(run, "core/vm"), guard_of(run), Epoch(run, is_writable=True)
    assert guard.judge(user_id, "x").code == ""

    identities.write_revoked(run, frozenset({"core/vm"}))
    epoch.advance()

    assert guard.judge(user_id, "x").code == guards.REVOKED
    assert guard.identify(user_id) is None
    identities.write_revoked(run, frozenset())
    epoch.advance()
    assert guard.judge(user_id, "x").code == ""


def test_other_policy_counts_from_the_next_message(run: Path) -> None:
    """A reload takes effect at once, for verdicts that were given before too."""
    user_id, guard = issued(run, "core/vm"), guard_of(run)
    assert guard.judge(user_id, "x").code == ""

    guards.write_policy(run, codec.encode(to_plain(Policy(rules=()))))
    Epoch(run, is_writable=True).advance()

    assert guard.judge(user_id, "x").code == guards.REFUSED


def test_missing_policy_allows_nothing_where_there_has_to_be_one(run: Path) -> None:
    """A file that went away is no permission; a tree that never had one keeps its rules."""
    user_id = issued(run, "operator/anna")
    (run / "policy").unlink()

    strict = guard_of(run).judge(user_id, "stop")
    free = Guard(run, "core", has_policy=False, is_supervisor=True).judge(user_id, "stop")

    assert (strict.code, free.code) == (guards.REFUSED, "")


def test_broken_policy_allows_nothing(run: Path) -> None:
    """Neither does one that can't be read."""
    user_id = issued(run, "core/vm")
    (run / "policy").write_bytes(b"\xc1")

    assert guard_of(run).judge(user_id, "x").code == guards.REFUSED


def test_unreadable_revocations_let_nobody_in(run: Path) -> None:
    """Who is revoked has to be known before anybody is heard."""
    user_id = issued(run, "core/vm")
    (run / "revoked").write_bytes(b"\xc1")

    assert guard_of(run).judge(user_id, "x").code == guards.REVOKED
    with pytest.raises(RemoteProtocolError):
        identities.read_revoked(run)


def test_made_up_methods_cost_bounded_memory(run: Path) -> None:
    """A caller who makes up methods empties a cache and no more."""
    user_id, guard = issued(run, "core/vm"), guard_of(run)

    for number in range(5000):
        guard.judge(user_id, f"m{number}")

    assert len(guard._verdicts) <= 4096


def test_issued_keys_follow_each_other(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process goes on with the next pair, which is there before it is used."""
    now_s = boottime_s()
    clock = [now_s]
    for module in ("issuer", "own_keys", "guard"):
        monkeypatch.setattr(f"supervisor.guard.{module}.boottime_s", lambda: clock[0])
    issuer = Issuer(run, 100.0)
    grant = issuer.issue("core/vm", 3)
    own = OwnKeys(run, grant.secret, since_s=grant.since_s, life_s=100.0)
    first = own.current()
    guard = guard_of(run)

    clock[0] = now_s + 51.0
    late = own.current()  # its supervisor has not renewed yet
    issuer.turn()
    clock[0] = now_s + 52.0
    second = own.current()
    clock[0] = now_s + 101.0

    assert late is first
    assert second != first
    assert guard.judge(raw_key(first.public).hex(), "x").code == guards.EXPIRED
    identity = guard.identify(raw_key(second.public).hex())
    assert identity is not None
    assert (identity.name, identity.incarnation) == ("core/vm", 3)


def test_suspended_host_catches_up(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After hours without a turn the pair of now is issued, and those between are not."""
    now_s = boottime_s()
    clock = [now_s]
    for module in ("issuer", "own_keys"):
        monkeypatch.setattr(f"supervisor.guard.{module}.boottime_s", lambda: clock[0])
    issuer = Issuer(run, 100.0)
    grant = issuer.issue("core/vm", 1)
    own = OwnKeys(run, grant.secret, since_s=grant.since_s, life_s=100.0)

    clock[0] = now_s + 10_000.0
    issuer.turn()

    assert own.current() == client_pair(grant.secret, 200)
    assert len(identities.list_all(run)) <= 2


def test_ended_process_leaves_no_keys(run: Path) -> None:
    """Nothing of an ended process can be used."""
    issuer = Issuer(run, 100.0)
    issuer.issue("core/vm", 1)

    issuer.withdraw("core/vm")

    assert identities.list_all(run) == []
    assert issuer.due_s() is None
