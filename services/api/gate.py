"""The gate: who asks, how often, and how often in vain; before an endpoint sees a request.

A request shows a token, or came over a connection with a client certificate, or is nobody's. Its
identity stands in ``scope["state"]["identity"]`` from here on. Requests are counted per identity;
those of nobody, and those that were refused, per address, and whoever is refused too often is
locked out for a while.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from protocol.messages.access import Role
from services.api.errors import (
    IdentityRefusedError,
    IdentityUnavailableError,
)
from services.api.identity import (
    Identity,
    Lockout,
    anonymous,
    identity_of_certificate,
    presented,
)
from services.api.problem import problem_response
from services.api.protocol import PEER_CERTIFICATE
from services.api.rate import Permit, RateLimiter, client_of
from services.security.tokens import Presented

CHALLENGE = 'Bearer realm="novacron"'
_GRANTED = Permit(is_granted=True)
# An IPv6 address in brackets, or a name or IPv4 address; and a port.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::[0-9]*)?")

Verify = Callable[[Presented], Awaitable[Identity]]


class OnLockout(Protocol):
    """Told when a client is locked out."""

    def __call__(self, client: str, *, for_s: int) -> None:
        """Told of one lock, and for how many seconds it holds."""


class _TooManyGuessesError(Exception):
    """The address has used up its requests, so no token of its is tried."""


class Gate:
    """Lets a request in with an identity, or answers 401, 429 or 503.

    Args:
        app: what answers those that are let in.
        verify: tells whose a token is; raises IdentityRefusedError and IdentityUnavailableError.
        limiter: requests per identity and per address; None for no limit.
        anonymous_role: what a request that shows nothing may do; None refuses it. Only for clients
            of this host that name it by a loopback name, so that no web page gets here by giving
            its own name our address.
        on_lockout: told of each lock.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        verify: Verify,
        limiter: RateLimiter | None,
        anonymous_role: Role | None,
        on_lockout: OnLockout,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._verify = verify
        self._limiter = limiter
        self._anonymous_role = anonymous_role
        self._on_lockout = on_lockout
        self._clock = clock
        self._lockout = Lockout()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find out who asks, count the request, and let it pass or answer it."""
        peer = scope.get("client")
        client = client_of(peer[0]) if peer else ""
        if wait_s := self._lockout.wait_s(client, now_s=self._clock()):
            await self._locked(scope, wait_s)(scope, receive, send)
            return
        try:
            identity = await self._identify(scope, client)
        except _TooManyGuessesError:
            await self._too_many(scope, self._take(client))(scope, receive, send)
            return
        except IdentityRefusedError as exc:
            await self._unknown(scope, client, exc)(scope, receive, send)
            return
        except IdentityUnavailableError as exc:
            response = problem_response(
                503, str(exc), path=scope["path"], code=exc.code, headers={"Retry-After": "1"}
            )
            await response(scope, receive, send)
            return
        permit = self._take(identity.key)
        if not permit.is_granted:
            await self._too_many(scope, permit)(scope, receive, send)
            return
        scope.setdefault("state", {})["identity"] = identity
        await self._app(scope, receive, send)

    async def _identify(self, scope: Scope, client: str) -> Identity:
        shown = presented(scope["headers"])
        if isinstance(shown, str):
            raise IdentityRefusedError(shown)
        if shown is not None:
            # Guesses are bounded ahead of what they would cost the security process.
            if not self._has(client):
                raise _TooManyGuessesError
            identity = await self._verify(shown)
            self._lockout.succeeded(client)
            return identity
        certificate = scope.get(PEER_CERTIFICATE)
        if certificate is not None:
            found = identity_of_certificate(certificate.subject, certificate.fingerprint)
            if isinstance(found, str):
                raise IdentityRefusedError(found)
            return found
        if self._anonymous_role is None:
            raise IdentityRefusedError("this request shows neither a token nor a certificate")
        if not is_loopback_host(scope):
            raise IdentityRefusedError("without a token, call this host localhost or 127.0.0.1")
        return anonymous(self._anonymous_role, client)

    def _unknown(self, scope: Scope, client: str, error: IdentityRefusedError) -> ASGIApp:
        permit = self._take(client)
        if not permit.is_granted:
            return self._too_many(scope, permit)
        now_s = self._clock()
        if self._lockout.failed(client, now_s=now_s):
            wait_s = self._lockout.wait_s(client, now_s=now_s)
            self._on_lockout(client, for_s=wait_s)
        headers = {"WWW-Authenticate": CHALLENGE}
        return problem_response(
            401, str(error), path=scope["path"], code=error.code, headers=headers
        )

    def _locked(self, scope: Scope, wait_s: int) -> ASGIApp:
        detail = f"this address was refused too often; it is heard again in {wait_s} s"
        headers = {"Retry-After": str(wait_s)}
        return problem_response(
            429, detail, path=scope["path"], code="api.locked_out", headers=headers
        )

    def _too_many(self, scope: Scope, permit: Permit) -> ASGIApp:
        detail = f"too many requests; the next one is answered in {permit.retry_after_s} s"
        headers = {"Retry-After": str(permit.retry_after_s)}
        return problem_response(429, detail, path=scope["path"], headers=headers)

    def _take(self, key: str) -> Permit:
        return _GRANTED if self._limiter is None else self._limiter.take(key, now_s=self._clock())

    def _has(self, key: str) -> bool:
        return self._limiter is None or self._limiter.has(key, now_s=self._clock())


def identity_of(request: HttpRequest) -> Identity:
    """Who sent a request that the gate let in."""
    identity = request.state.identity
    assert isinstance(identity, Identity)
    return identity


def is_loopback_host(scope: Scope) -> bool:
    """Whether a request came from this host and calls it by a loopback name."""
    peer = scope.get("client")
    if peer is None or not _is_loopback(peer[0]):
        return False
    named = next((value for key, value in scope["headers"] if key == b"host"), b"")
    match = _HOST.fullmatch(named.decode("latin-1"))
    host = "" if match is None else match[1] or match[2]
    return host.lower() == "localhost" or _is_loopback(host)


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
