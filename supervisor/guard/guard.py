"""Who is calling, and may they: asked for each message that a process of a tree takes.

The rules: a message counts only while the key of its connection is issued, not expired and not
revoked; a call is carried out only if the policy allows it. Both are looked at anew when the
tree's counter has advanced, so a revocation or another policy takes effect at the next message.
What can't be read allows nothing. A tree without a policy keeps the rules of ``open_policy``.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from protocol import codec, run_files
from protocol.errors import RemoteProtocolError
from protocol.transports import identities
from protocol.transports.identities import Epoch, Identity, boottime_s
from supervisor.child import logs
from supervisor.guard import policy as policies
from supervisor.guard.policy import Policy

REFUSED = "supervisor.access_refused"
EXPIRED = "supervisor.identity_expired"
REVOKED = "supervisor.identity_revoked"
# Pairs of caller and method; a caller who makes up methods empties the cache, and no more.
_VERDICTS_MAX = 4096
_IDENTITIES_MAX = 4096


class Verdict(NamedTuple):
    """What became of a message.

    Attributes:
        caller: path of the process, or ``operator/<user name>``; "" where the key is not known.
        code: error code of a refusal; "" when the call may go on.
        is_audited: whether it is recorded before it does.
        rule: that allows it.
        reason: of a refusal, for people.
        expires_s: when the identity ends, by boottime_s.
    """

    caller: str
    code: str
    is_audited: bool
    rule: str
    reason: str
    expires_s: float


class Guard:
    """Decides for one process.

    Args:
        run: the run directory.
        path: the process's path.
        has_policy: the tree has one, so a missing file allows nothing.
        is_supervisor: the process is a supervisor.
    """

    def __init__(self, run: Path, path: str, *, has_policy: bool, is_supervisor: bool) -> None:
        self._run = run
        self._path = path
        self._has_policy = has_policy
        self._is_supervisor = is_supervisor
        self._epoch = Epoch(run)
        self._seen = self._epoch.value
        self._policy: Policy | None = None
        self._revoked: frozenset[str] | None = None
        self._identities: dict[str, Identity] = {}
        self._verdicts: dict[tuple[str, str], Verdict] = {}

    def admit(self, user_id: str) -> bool:
        """Whether a key may connect."""
        return not self._problem(user_id)[1]

    def identify(self, user_id: str) -> Identity | None:
        """Who a message comes from; None where it does not count.

        Args:
            user_id: key of the connection, in hexadecimal.
        """
        if self._epoch.value != self._seen:
            self._refresh()
        identity = self._identities.get(user_id)
        if identity is not None and identity.expires_s > boottime_s():
            return identity
        identity, problem, _reason = self._problem(user_id)
        if problem or identity is None:
            return None
        if len(self._identities) >= _IDENTITIES_MAX:
            self._identities.clear()
        self._identities[user_id] = identity
        return identity

    def judge(self, user_id: str, method: str) -> Verdict:
        """Decide a call or cast.

        Args:
            user_id: key of the connection, in hexadecimal.
            method: that is called.
        """
        if self._epoch.value != self._seen:
            self._refresh()
        verdict = self._verdicts.get((user_id, method))
        if verdict is None or verdict.expires_s <= boottime_s():
            verdict = self._work_out(user_id, method)
            if len(self._verdicts) >= _VERDICTS_MAX:
                self._verdicts.clear()
            if verdict.expires_s > 0.0:  # who is not known now may be known next
                self._verdicts[user_id, method] = verdict
        return verdict

    def _refresh(self) -> None:
        self._seen = self._epoch.value
        self._verdicts.clear()
        self._identities.clear()
        self._policy = self._revoked = None

    def _work_out(self, user_id: str, method: str) -> Verdict:
        identity, code, reason = self._problem(user_id)
        if identity is None or code:
            caller = "" if identity is None else identity.name
            return Verdict(caller, code, False, "", reason, 0.0)  # noqa: FBT003 - named above
        policy = self._read_policy() if self._policy is None else self._policy
        roles = policies.roles_of(policy, identity.uid, identity.gids)
        found = policies.decide(policy, identity.name, roles, method, self._path)
        return Verdict(
            identity.name,
            "" if found.is_allowed else REFUSED,
            found.is_audited,
            found.rule,
            found.reason,
            identity.expires_s,
        )

    def _problem(self, user_id: str) -> tuple[Identity | None, str, str]:
        """An identity by the files; a code and a sentence where it does not count."""
        identity = identities.find(self._run, user_id)
        if identity is None:
            return None, EXPIRED, "the key of this connection is not, or no longer, issued"
        if identity.expires_s <= boottime_s():
            return identity, EXPIRED, f"the identity of {identity.name} has expired"
        try:
            if self._revoked is None:
                self._revoked = identities.read_revoked(self._run)
        except RemoteProtocolError as exc:
            return identity, REVOKED, str(exc)
        if identity.name in self._revoked:
            return identity, REVOKED, f"the identity of {identity.name} is revoked"
        return identity, "", ""

    def _read_policy(self) -> Policy:
        self._policy = Policy(rules=())
        try:
            data = (self._run / run_files.POLICY).read_bytes()
            self._policy = policies.from_plain(codec.decode(data))
        except FileNotFoundError:
            if not self._has_policy:
                self._policy = policies.open_policy(is_supervisor=self._is_supervisor)
        except (OSError, RemoteProtocolError) as exc:
            logs.Logger().error("policy_unreadable", reason=str(exc))
        return self._policy


def write_policy(run: Path, data: bytes) -> None:
    """Put a compiled policy where every process of the tree reads it; the root advances then."""
    identities.replace_file(run / run_files.POLICY, data)
