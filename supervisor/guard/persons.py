"""The root issues the identities of persons: who connects is told by the kernel.

A person connects to ``<run>/identity.sock`` and says nothing. The kernel names user and groups of
the process at the other end, and the answer is one message with a key pair of a few minutes, or
with why there is none. Nobody can make the root wait: nothing is read, an answer fits into an
empty socket, and the one thing that may take long, finding the name of an account in a directory
service, is done by a thread.

Wire shape of the answer, one msgpack map in one packet::

    name, public, secret, life_s   ``operator/<user name>``, a CURVE key pair in Z85, seconds
    code, message                  in their place, where there is no identity

Source: unix(7), SO_PEERCRED and SO_PEERGROUPS.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from protocol import codec, names
from protocol.dataclass import dataclass
from protocol.errors import NovacronError
from protocol.records import Plain
from protocol.transports import identities
from protocol.transports.curve import KeyPair, client_pair
from protocol.transports.identities import Identity, boottime_s
from protocol.transports.person import SOCKET
from supervisor.guard.background import Attach, Background
from supervisor.guard.guard import REVOKED

LIFE_S = 300.0
# Connections that wait for the name of an account at the same time, and for how long.
_WAITING_MAX = 16
_WAITING_S = 2.0
# Taken in one turn before everything else gets its own.
_BURST_MAX = 32
_BACKLOG = 64
# Of one user: this many at once, and then so many a second. A command line asks once.
_RATE_AT_ONCE = 200
_RATE_PER_S = 50.0
# Keys that are alive; a person has one for each set of groups.
_KEYS_MAX = 512
_NAME_TRUST_S = 60.0
_CREDENTIALS = struct.Struct("=iII")
_SO_PEERGROUPS = 59  # not in the standard library
# As many as the standard library asks for; who is in more groups gets no identity.
_GROUPS_BYTES = 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@$-]{0,62}")
_BUSY = "supervisor.busy"


class NoIdentityError(NovacronError):
    """A person gets no identity now; the message says why."""

    code = _BUSY
    retryable = True


@dataclass(slots=True)
class _Key:
    pair: KeyPair
    identity: Identity


@dataclass(slots=True)
class _Waiting:
    peer: socket.socket
    uid: int
    gids: tuple[int, ...]
    deadline_s: float
    name: str = ""


@dataclass(slots=True)
class _Rate:
    level: float
    at_s: float


class Persons:
    """The desk where persons get their keys.

    Args:
        run: the run directory; its group may connect.
        life_s: of a key.
        attach: has the root's loop call a function when a descriptor is readable.
        revoked: the names that get none.
        tell: takes an event for the log and the name that it is about.
    """

    def __init__(
        self,
        run: Path,
        *,
        life_s: float,
        attach: Attach,
        revoked: Callable[[], frozenset[str]],
        tell: Callable[[str, str], None],
    ) -> None:
        self._run = run
        self._life_s = min(life_s, LIFE_S)
        self._attach = attach
        self._revoked = revoked
        self._tell = tell
        self._keys: dict[tuple[int, tuple[int, ...]], _Key] = {}
        self._old_keys: list[_Key] = []
        self._names: dict[int, tuple[str, float]] = {0: ("root", float("inf"))}
        self._rates: dict[int, _Rate] = {}
        self._waiting: list[_Waiting] = []
        self._named: list[_Waiting] = []
        self._background: Background[_Waiting] | None = None
        self._socket = _listen(run / SOCKET)
        attach(self._socket.fileno(), self._take)

    def due_s(self) -> float | None:
        """When ``turn`` is needed next, on the monotonic clock."""
        due = [waiting.deadline_s for waiting in self._waiting]
        if keys := [*self._keys.values(), *self._old_keys]:
            ends_s = min(key.identity.expires_s for key in keys)
            due.append(time.monotonic() + ends_s - boottime_s())
        return min(due, default=None)

    def turn(self, now_s: float) -> None:
        """Give up on names that are not found in time, and forget keys that have expired."""
        for waiting in [waiting for waiting in self._waiting if waiting.deadline_s <= now_s]:
            self._waiting.remove(waiting)
            _refuse(waiting.peer, _BUSY, f"the name of user {waiting.uid} is not found in time")
        if self._keys:
            self._forget(lambda key: key.identity.expires_s <= boottime_s())

    def withdraw(self, name: str) -> None:
        """Forget the keys of a person who is revoked."""
        self._forget(lambda key: key.identity.name == name)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
        (self._run / SOCKET).unlink(missing_ok=True)
        for waiting in self._waiting:
            waiting.peer.close()

    def _take(self) -> None:
        for _ in range(_BURST_MAX):
            try:
                peer, _address = self._socket.accept()
            except OSError:  # nobody is there, or no descriptor is left
                return
            peer.settimeout(0)
            try:
                self._welcome(peer)
            except NoIdentityError as exc:
                _refuse(peer, exc.code, str(exc))
            except OSError as exc:
                _refuse(peer, _BUSY, f"can't tell who connects: {exc.strerror}")

    def _welcome(self, peer: socket.socket) -> None:
        uid, gids = _peer_of(peer)
        self._count(uid)
        name, until_s = self._names.get(uid, ("", 0.0))
        if until_s > time.monotonic():
            self._answer(peer, name, uid, gids)
            return
        if len(self._waiting) >= _WAITING_MAX:
            raise NoIdentityError("too many connect at once; try again")
        if self._background is None:
            self._background = Background(self._find_names, self._attach, self._settle)
        waiting = _Waiting(peer, uid, gids, time.monotonic() + _WAITING_S)
        self._waiting.append(waiting)
        self._background.put(waiting)

    def _count(self, uid: int) -> None:
        now_s = time.monotonic()
        if len(self._rates) >= _KEYS_MAX:
            self._rates.clear()
        rate = self._rates.setdefault(uid, _Rate(0.0, now_s))
        rate.level = max(0.0, rate.level - (now_s - rate.at_s) * _RATE_PER_S) + 1.0
        rate.at_s = now_s
        if rate.level > _RATE_AT_ONCE:
            rate.level = _RATE_AT_ONCE
            raise NoIdentityError("this user asks too often; try again in a second")

    def _find_names(self, items: list[_Waiting]) -> None:
        """In the thread."""
        for waiting in items:
            try:
                found = pwd.getpwuid(waiting.uid).pw_name
            except (KeyError, OSError):
                found = ""
            waiting.name = found if _NAME.fullmatch(found) else f"uid-{waiting.uid}"
        self._named.extend(items)

    def _settle(self) -> None:
        while self._named:
            waiting = self._named.pop()
            if len(self._names) >= _KEYS_MAX:
                self._names = {0: self._names[0]}
            self._names[waiting.uid] = (waiting.name, time.monotonic() + _NAME_TRUST_S)
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                try:
                    self._answer(waiting.peer, waiting.name, waiting.uid, waiting.gids)
                except NoIdentityError as exc:
                    _refuse(waiting.peer, exc.code, str(exc))

    def _answer(self, peer: socket.socket, user: str, uid: int, gids: tuple[int, ...]) -> None:
        name = names.person_path(user)
        if name in self._revoked():
            self._tell("identity_refused", name)
            _refuse(peer, REVOKED, f"the identity of {user} is revoked")
            return
        key = self._keys.get((uid, gids))
        now_s = boottime_s()
        if key is None or key.identity.expires_s - now_s < self._life_s / 2:
            key = self._make(name, uid, gids, now_s)
        answer: dict[str, Plain] = {
            "name": name,
            "public": key.pair.public,
            "secret": key.pair.secret,
            "life_s": key.identity.expires_s - now_s,
        }
        _send(peer, answer)

    def _make(self, name: str, uid: int, gids: tuple[int, ...], now_s: float) -> _Key:
        if len(self._keys) + len(self._old_keys) >= _KEYS_MAX:
            raise NoIdentityError("too many persons are connected; try again later")
        pair = client_pair(os.urandom(32), 0)
        identity = Identity(name=name, expires_s=now_s + self._life_s, uid=uid, gids=gids)
        identities.issue(self._run, pair.public, identity)
        if (last := self._keys.get((uid, gids))) is not None:
            self._old_keys.append(last)  # still in use somewhere, until it expires
        key = self._keys[uid, gids] = _Key(pair, identity)
        self._tell("identity_issued", name)
        return key

    def _forget(self, is_over: Callable[[_Key], bool]) -> None:
        over = [key for key in (*self._keys.values(), *self._old_keys) if is_over(key)]
        for key in over:
            identities.withdraw(self._run, key.pair.public)
        self._keys = {place: key for place, key in self._keys.items() if key not in over}
        self._old_keys = [key for key in self._old_keys if key not in over]


def _listen(path: Path) -> socket.socket:
    """Listen, so that where the file is somebody answers; a bound socket alone refuses."""
    unready = path.with_suffix(".next")
    unready.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(unready))
    unready.chmod(0o660)  # the group comes from the directory
    listener.listen(_BACKLOG)
    listener.settimeout(0)
    unready.rename(path)
    return listener


def _peer_of(peer: socket.socket) -> tuple[int, tuple[int, ...]]:
    """User and groups of the process that connected, as they were then."""
    data = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, gid = _CREDENTIALS.unpack(data)
    more = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    gids = {gid, *(number for (number,) in struct.iter_unpack("=I", more))}
    return uid, tuple(sorted(gids))


def _refuse(peer: socket.socket, code: str, message: str) -> None:
    _send(peer, {"code": code, "message": message})


def _send(peer: socket.socket, answer: dict[str, Plain]) -> None:
    try:
        peer.send(codec.encode(answer))
    except OSError:  # who asked has gone
        pass
    finally:
        peer.close()
