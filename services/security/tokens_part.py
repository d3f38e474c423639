"""API tokens: made and revoked by persons, tried for the API at each request.

A token is looked up in the database each time, so that a revocation on any node takes effect with
the next request on every node. While the database is away, what was good at the last look is
believed for a few minutes, so that operators can still see what is wrong through the API.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.records import Plain, from_wire, to_wire
from services.data.errors import DatabaseUnavailableError
from services.data.postgres import connect
from services.security import tokens
from services.security.errors import (
    TokenRefusedError,
    TokensFullError,
    TokenUnknownError,
    TokenWrongError,
)
from services.security.parts import Level, Part
from services.security.token_model import (
    Bearer,
    CreatedToken,
    CreateRequest,
    RevokeRequest,
    TokenEntry,
)
from services.security.token_store import PostgresTokenStore, TokenStore
from services.security.tokens import Presented, Token
from supervisor.child.service import CallHandler, Request

TOKENS_MAX = 10_000
# How long a token that was good is believed while the database can't be asked.
BELIEVED_S = 300.0
BELIEVED_MAX = 1024
LISTED_MAX = 1000
# Ended tokens are forgotten after so long.
KEPT_S = 90 * 86400.0


@dataclass(frozen=True, slots=True)
class _Seen:
    token: Token
    at_s: float


class TokensPart(Part):
    """Keeps the tokens.

    Args:
        level: what all parts share.
        store: where they are kept; by default the node's database.
        now: Unix time.
        monotonic: seconds.
    """

    step = 4
    name = "api_tokens"

    def __init__(
        self,
        level: Level,
        store: TokenStore | None = None,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        settings = level.settings.postgres
        self._level = level
        self._store = store or PostgresTokenStore(
            lambda: connect(settings, application=f"{level.context.path} tokens")
        )
        self._now = now
        self._monotonic = monotonic
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._trouble = ""

    async def open(self) -> Mapping[str, Plain]:
        """Nothing is read before somebody asks."""
        return {}

    def calls(self) -> Mapping[str, CallHandler]:
        """See services.security.token_model."""
        return {
            "token.create": self._create,
            "token.list": self._list,
            "token.revoke": self._revoke,
            "token.verify": self._verify,
        }

    def health(self) -> Health:
        """Degraded while tokens are believed without a look at the database."""
        return Health(HealthState.DEGRADED, self._trouble) if self._trouble else HEALTHY

    async def close(self) -> None:
        """Close the connection."""
        await self._store.close()

    async def _create(self, request: Request) -> Plain:
        body = from_wire(CreateRequest, request.body)
        if problem := tokens.name_problem(body.name):
            raise TokenWrongError(problem)
        text, kept = tokens.format_token(os.urandom(tokens.ID_LENGTH + tokens.SECRET_BYTES))
        now_s = self._now()
        token = Token(
            id=kept.id,
            name=body.name,
            role=body.role,
            digest=kept.digest,
            created_s=now_s,
            created_by=request.caller,
            expires_s=now_s + body.lifetime_s,
        )
        await self._store.prune(before_s=now_s - KEPT_S)
        if not await self._store.add(token, tokens_max=TOKENS_MAX):
            raise TokensFullError(f"{TOKENS_MAX} tokens are kept; revoked ones go after 90 days")
        self._tell("token:created", token, request.caller)
        return to_wire(CreatedToken(token=text, entry=self._entry(token)))

    async def _list(self, _request: Request) -> Plain:
        found = await self._store.newest(limit=LISTED_MAX)
        return to_wire([self._entry(token) for token in found])

    async def _revoke(self, request: Request) -> Plain:
        body = from_wire(RevokeRequest, request.body)
        self._seen.pop(body.id, None)  # whatever becomes of the rest
        token = await self._store.revoke(body.id, now_s=self._now())
        if token is None:
            raise TokenUnknownError(f"there is no token {body.id!r:.40}; 'token list' shows them")
        self._tell("token:revoked", token, request.caller)
        return to_wire(self._entry(token))

    async def _verify(self, request: Request) -> Plain:
        shown = from_wire(Presented, request.body)
        token = await self._find(shown.id)
        if problem := tokens.problem_of(token, shown.digest, now_s=self._now()):
            raise TokenRefusedError(problem)
        assert token is not None
        return to_wire(
            Bearer(id=token.id, name=token.name, role=token.role, expires_s=token.expires_s)
        )

    async def _find(self, token_id: str) -> Token | None:
        try:
            token = await self._store.find(token_id)
        except DatabaseUnavailableError as exc:
            seen = self._seen.get(token_id)
            if seen is None or self._monotonic() - seen.at_s > BELIEVED_S:
                raise
            self._set_trouble(f"API tokens are tried without the database: {exc.message}")
            return seen.token
        self._set_trouble("")
        if token is None:
            self._seen.pop(token_id, None)
            return None
        self._seen[token_id] = _Seen(token, self._monotonic())
        self._seen.move_to_end(token_id)
        while len(self._seen) > BELIEVED_MAX:
            self._seen.popitem(last=False)
        return token

    def _set_trouble(self, trouble: str) -> None:
        if bool(trouble) != bool(self._trouble):
            self._trouble = trouble
            self._level.on_change()

    def _tell(self, what: str, token: Token, caller: str) -> None:
        about: dict[str, Plain] = {"id": token.id, "owner": token.name, "role": token.role.value}
        self._level.context.emit(what, **about, caller=caller)

    def _entry(self, token: Token) -> TokenEntry:
        state = "active"
        if token.revoked_s is not None:
            state = "revoked"
        elif self._now() >= token.expires_s:
            state = "expired"
        return TokenEntry(
            id=token.id,
            name=token.name,
            role=token.role,
            state=state,
            created_s=token.created_s,
            created_by=token.created_by,
            expires_s=token.expires_s,
            revoked_s=token.revoked_s,
        )
