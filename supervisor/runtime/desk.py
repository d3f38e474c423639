"""The root's desk for identities: keys for persons, the list of all, revocation.

Revocation is by name and lasts until it is taken back or the node stops: every process refuses
the name from its next message on, and the root issues no key to it. What is to last longer
belongs into the policy, or into the groups of the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from protocol import names
from protocol.errors import NovacronError, RemoteProtocolError
from protocol.records import Plain
from protocol.transports import identities
from protocol.transports.identities import Epoch, boottime_s
from supervisor.child import logs
from supervisor.guard.persons import Persons
from supervisor.runtime.caller import Caller

if TYPE_CHECKING:
    from supervisor.runtime.loop import SupervisorLoop

_REVOKED_MAX = 1024
_NAME_LENGTH_MAX = 200

Note = Callable[[str, str, dict[str, Plain]], None]


class IdentityError(NovacronError):
    """An identity can't be revoked or restored; the message says why."""

    code = "supervisor.identity"


class Desk:
    """Identities as persons see them.

    Args:
        loop: the root's.
        life_s: of a pair of keys.
        note: writes into the journal.

    Attributes:
        epoch: advanced whenever every process has to look again.
        calls: what the control channel answers.
    """

    def __init__(self, loop: SupervisorLoop, *, life_s: float, note: Note) -> None:
        self._loop = loop
        self._note = note
        self._revoked: frozenset[str] = frozenset()
        self.epoch = Epoch(loop.run_dir, is_writable=True)
        log = logs.Logger()
        self._persons = Persons(
            loop.run_dir,
            life_s=life_s,
            attach=loop.watch,
            revoked=lambda: self._revoked,
            tell=lambda event, name: log.info(event, caller=name),
        )
        self.calls = {
            "identity.list": self._take_list,
            "identity.revoke": self._take_revoke,
            "identity.restore": self._take_restore,
        }

    def due_s(self) -> float | None:
        """When ``turn`` is needed next."""
        return self._persons.due_s()

    def turn(self, now_s: float) -> None:
        """Forget what has expired."""
        self._persons.turn(now_s)

    def close(self) -> None:
        """Issue no more."""
        self._persons.close()

    def _take_list(self, caller: Caller) -> None:
        now_s = boottime_s()
        last: dict[str, float] = {}
        for _key, identity in identities.list_all(self._loop.run_dir):
            last[identity.name] = max(last.get(identity.name, 0.0), identity.expires_s)
        body: Plain = {
            "identities": [
                {
                    "name": name,
                    "is_person": names.is_person(name),
                    "expires_in_s": last[name] - now_s if name in last else None,
                    "is_revoked": name in self._revoked,
                }
                for name in sorted(last.keys() | self._revoked)
            ]
        }
        self._loop.control.reply(caller, body)

    def _take_revoke(self, caller: Caller) -> None:
        name = _name(caller)
        if name == names.ROOT:
            raise IdentityError("the root calls nobody: there is nothing to revoke; stop the node")
        if name == caller.path:
            raise IdentityError(f"{name} can't revoke itself: nobody could take that back")
        if len(self._revoked) >= _REVOKED_MAX:
            raise IdentityError(f"{_REVOKED_MAX} identities are revoked; use the policy")
        self._set(self._revoked | {name})
        self._persons.withdraw(name)
        self._note("identity:revoked", name, {"caller": caller.path})
        self._loop.control.reply(caller, {"name": name, "is_revoked": True})

    def _take_restore(self, caller: Caller) -> None:
        name = _name(caller)
        if name not in self._revoked:
            raise IdentityError(f"{name} is not revoked")
        self._set(self._revoked - {name})
        self._note("identity:restored", name, {"caller": caller.path})
        self._loop.control.reply(caller, {"name": name, "is_revoked": False})

    def _set(self, revoked: frozenset[str]) -> None:
        # In the run directory, which is in memory: the root's loop waits for no disk.
        identities.write_revoked(self._loop.run_dir, revoked)
        self._revoked = revoked
        self.epoch.advance()


def _name(caller: Caller) -> str:
    match caller.message.body:
        case {"name": str(name)} if 0 < len(name) <= _NAME_LENGTH_MAX:
            if names.person_of(name) or names.is_process_path(name):
                return name
    raise RemoteProtocolError('the body is {"name": a process path or operator/<user name>}')
