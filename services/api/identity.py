"""Who asks: identities, how a request shows one, and how often one may be wrong; no clock here."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from protocol.messages.access import Role
from services.security.tokens import Presented, parse_token

# Addresses that are remembered for their failures; some 100 bytes each.
CLIENTS_MAX = 10_000
FAILURES_MAX = 10
FAILURES_PERIOD_S = 60.0
LOCKED_FIRST_S = 60.0
LOCKED_MAX_S = 900.0
# A certificate's subject as OpenSSL's names have it.
_NAME, _ROLE = "commonName", "organizationName"


class Means(enum.Enum):
    """How an identity was shown."""

    TOKEN = "token"  # noqa: S105 - a word, not a secret
    CERTIFICATE = "certificate"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who asks.

    Attributes:
        name: of the person or program; part of what the audit log calls the actor.
        role: what it may do.
        means: how it was shown.
        key: what its requests are counted under.
    """

    name: str
    role: Role
    means: Means
    key: str

    @property
    def actor(self) -> str:
        """The name in the audit log, such as ``token/ci``."""
        return f"{self.means.value}/{self.name}" if self.name else self.means.value


def presented(headers: Iterable[tuple[bytes, bytes]]) -> Presented | str | None:
    """The token that a request shows.

    Args:
        headers: with lower-case names.

    Returns:
        What the token presents, None for a request that shows none, or what is wrong as a sentence.
    """
    found = [value for name, value in headers if name == b"authorization"]
    if not found:
        return None
    if len(found) > 1:
        return "more than one Authorization header"
    scheme, _, token = found[0].decode("latin-1").partition(" ")
    if scheme.lower() != "bearer":
        return "only the Bearer scheme is known here"
    return parse_token(token.strip()) or "the bearer token is malformed"


def identity_of_certificate(
    subject: Sequence[Sequence[tuple[str, str]]], fingerprint: str
) -> Identity | str:
    """Whom a verified client certificate names: CN is the name, O the role, as in Kubernetes.

    Args:
        subject: as ``ssl.SSLSocket.getpeercert`` gives it.
        fingerprint: of the certificate, hexadecimal.

    Returns:
        The identity, or what is wrong with the certificate as a sentence.
    """
    fields: dict[str, list[str]] = {}
    for key, value in (item for part in subject for item in part):
        fields.setdefault(key, []).append(value)
    names, roles = fields.get(_NAME, []), fields.get(_ROLE, [])
    if len(names) != 1 or len(roles) != 1:
        return "a client certificate names one CN (the name) and one O (the role)"
    try:
        role = Role(roles[0])
    except ValueError:
        known = ", ".join(item.value for item in Role)
        return f"the client certificate's O is {roles[0]!r:.40}; the roles are {known}"
    key = f"certificate:{fingerprint}"
    return Identity(name=names[0], role=role, means=Means.CERTIFICATE, key=key)


@dataclass(slots=True)
class _Failures:
    count: int
    since_s: float
    locked_until_s: float = 0.0
    locked_for_s: float = 0.0


class Lockout:
    """Keeps clients out for a while that were refused too often.

    A client that fails ``failures_max`` times within a period is locked out, each time twice as
    long up to a limit; a success, or a quiet time of the longest lock, ends the counting. The table
    is bounded; who failed longest ago is forgotten first.

    Args:
        failures_max: failures within FAILURES_PERIOD_S that lock a client out.
        clients_max: size of the table.
    """

    def __init__(self, *, failures_max: int = FAILURES_MAX, clients_max: int = CLIENTS_MAX) -> None:
        self._failures_max = failures_max
        self._clients_max = clients_max
        self._clients: OrderedDict[str, _Failures] = OrderedDict()

    def wait_s(self, client: str, *, now_s: float) -> int:
        """Whole seconds for which a client is still locked out; 0 when it is not."""
        found = self._clients.get(client)
        return 0 if found is None else max(0, math.ceil(found.locked_until_s - now_s))

    def failed(self, client: str, *, now_s: float) -> bool:
        """Note a failure; True when it locked the client out."""
        found = self._clients.pop(client, None)
        if found is None or now_s - found.since_s > FAILURES_PERIOD_S:
            was_s = 0.0
            if found is not None and now_s - found.locked_until_s < LOCKED_MAX_S:
                was_s = found.locked_for_s
            found = _Failures(0, now_s, locked_for_s=was_s)
        found.count += 1
        self._clients[client] = found
        while len(self._clients) > self._clients_max:
            self._clients.popitem(last=False)
        if found.count < self._failures_max:
            return False
        found.locked_for_s = min(LOCKED_MAX_S, max(LOCKED_FIRST_S, 2 * found.locked_for_s))
        found.locked_until_s = now_s + found.locked_for_s
        found.count, found.since_s = 0, found.locked_until_s
        return True

    def succeeded(self, client: str) -> None:
        """Forget the failures of a client that has shown who it is."""
        self._clients.pop(client, None)

    def clients(self) -> int:
        """Clients that are remembered."""
        return len(self._clients)


def anonymous(role: Role, client: str) -> Identity:
    """Somebody who shows nothing, where that is allowed."""
    return Identity(name="", role=role, means=Means.ANONYMOUS, key=client)


def peer_subject(certificate: Mapping[str, object] | None) -> Sequence[Sequence[tuple[str, str]]]:
    """The subject of what ``getpeercert`` returned."""
    subject = (certificate or {}).get("subject", ())
    assert isinstance(subject, tuple)
    return subject
