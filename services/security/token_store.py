"""API tokens in PostgreSQL, shared by all nodes of the database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import psycopg

from protocol.messages.access import Role
from services.data.errors import DatabaseUnavailableError
from services.data.postgres import Connection, Row
from services.data.refusal import one_line
from services.data.single import SingleConnection
from services.security.errors import TokenStoreError
from services.security.tokens import Token

_COLUMNS = "id, name, role, digest, created_at, created_by, expires_at, revoked_at"
_SELECT = f"SELECT {_COLUMNS} FROM api_tokens "  # noqa: S608 - constants
_INSERT = f"INSERT INTO api_tokens ({_COLUMNS}) VALUES (%s,%s,%s,%s,%s,%s,%s,%s)"  # noqa: S608
# The first revocation counts.
_REVOKE = "UPDATE api_tokens SET revoked_at = coalesce(revoked_at, %s) WHERE id = %s "
# What nobody can use any more is kept for a while, to tell its owner why.
_PRUNE = "DELETE FROM api_tokens WHERE least(expires_at, revoked_at) < %s"


class TokenStore(Protocol):
    """Where tokens are kept. Every method raises DatabaseUnavailableError or TokenStoreError."""

    async def find(self, token_id: str) -> Token | None:
        """The token with an id."""

    async def newest(self, *, limit: int) -> tuple[Token, ...]:
        """The newest tokens, used up ones included."""

    async def add(self, token: Token, *, tokens_max: int) -> bool:
        """Keep a new token; False when there are as many as there may be."""

    async def revoke(self, token_id: str, *, now_s: float) -> Token | None:
        """End a token; None when there is none of that id."""

    async def prune(self, *, before_s: float) -> int:
        """Forget tokens that ended before a time; returns how many."""

    async def close(self) -> None:
        """Let go of the store."""


class PostgresTokenStore:
    """A TokenStore in the table ``api_tokens``.

    Args:
        connect: opens a connection; one is held while the store is in use.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._single = SingleConnection(connect)

    async def find(self, token_id: str) -> Token | None:
        """The token with an id."""
        rows = await self._rows(_SELECT + "WHERE id = %s", [token_id])
        return _token(rows[0]) if rows else None

    async def newest(self, *, limit: int) -> tuple[Token, ...]:
        """The newest tokens first."""
        rows = await self._rows(_SELECT + "ORDER BY created_at DESC, id LIMIT %s", [limit])
        return tuple(_token(row) for row in rows)

    async def add(self, token: Token, *, tokens_max: int) -> bool:
        """Insert the token unless the table is full."""
        row = (
            token.id,
            token.name,
            token.role.value,
            token.digest,
            _time(token.created_s),
            token.created_by,
            _time(token.expires_s),
            None if token.revoked_s is None else _time(token.revoked_s),
        )
        counted = await self._rows("SELECT count(*) FROM api_tokens", [])
        if counted[0][0] >= tokens_max:
            return False
        await self._rows(_INSERT, row)
        return True

    async def revoke(self, token_id: str, *, now_s: float) -> Token | None:
        """Set the time of the first revocation."""
        query = f"{_REVOKE}RETURNING {_COLUMNS}"
        rows = await self._rows(query, [_time(now_s), token_id])
        return _token(rows[0]) if rows else None

    async def prune(self, *, before_s: float) -> int:
        """Delete tokens that ended before a time."""
        return len(await self._rows(f"{_PRUNE} RETURNING id", [_time(before_s)]))

    async def close(self) -> None:
        """Close the connection."""
        await self._single.close()

    async def _rows(self, query: str, parameters: Sequence[object]) -> list[Row]:
        try:
            async with self._single.use() as connection:
                cursor = await connection.execute(query, parameters)
                return [] if cursor.description is None else await cursor.fetchall()
        except DatabaseUnavailableError:
            raise
        except psycopg.Error as exc:
            raise TokenStoreError(
                f"the table of tokens can't be used: {one_line(str(exc))}",
                sqlstate=exc.sqlstate or "",
            ) from exc


def _time(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC)


def _token(row: Row) -> Token:
    revoked: dt.datetime | None = row[7]
    return Token(
        id=row[0],
        name=row[1],
        role=_role(row[2]),
        digest=bytes(row[3]),
        created_s=row[4].timestamp(),
        created_by=row[5],
        expires_s=row[6].timestamp(),
        revoked_s=None if revoked is None else revoked.timestamp(),
    )


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise TokenStoreError(f"the table of tokens holds the unknown role {text!r:.40}") from None
