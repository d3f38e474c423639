"""The calls about API tokens, and their records.

``token.create``, ``token.list`` and ``token.revoke`` are for persons, ``token.verify`` for the API:

    token.create  CreateRequest -> CreatedToken
    token.list    nothing -> [TokenEntry]
    token.revoke  RevokeRequest -> TokenEntry
    token.verify  Presented -> Bearer
"""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol.messages.access import Role
from services.security.tokens import LIFETIME_MAX_S

LIFETIME_DEFAULT_S = 30 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """For whom or what, with which role, for how long."""

    name: str
    role: Role = Role.VIEWER
    lifetime_s: float = LIFETIME_DEFAULT_S

    def __post_init__(self) -> None:
        if not 60 <= self.lifetime_s <= LIFETIME_MAX_S:
            raise ValueError(f"lifetime_s is {self.lifetime_s:g}; 60 to {LIFETIME_MAX_S:.0f}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeRequest:
    """The id of a token."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEntry:
    """A token as lists show it; ``state`` is active, expired or revoked. Unix times."""

    id: str
    name: str
    role: Role
    state: str
    created_s: float
    created_by: str
    expires_s: float
    revoked_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedToken:
    """A new token; ``token`` is shown this once."""

    token: str = field(repr=False)
    entry: TokenEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """Who presents a token: its id, the name it was made for, the role; ends at a Unix time."""

    id: str
    name: str
    role: Role
    expires_s: float
