"""API tokens: how they look, and whether one is good; decided without a clock or a database.

A token is shown once, when it is made, and reads ``nova_<id>_<secret>``. The id (10 characters)
names it in lists and logs; the secret (32 random bytes, base64url) is kept by nobody but its
owner. What is kept is its SHA-256: a secret of 256 random bits can't be guessed from that, so a
slow hash, which passwords need, would only slow the API.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass, field

from protocol.messages.access import Role

PREFIX = "nova"
ID_LENGTH = 10
SECRET_BYTES = 32
LIFETIME_MAX_S = 366 * 86400.0
NAME_LENGTH_MAX = 64
_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_TOKEN = re.compile(rf"{PREFIX}_([a-z2-7]{{{ID_LENGTH}}})_([A-Za-z0-9_-]{{43}})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What is kept of a token.

    Attributes:
        id: names it; not secret.
        name: whom or what it was made for; the actor of what is done with it.
        role: what its bearer may do.
        digest: SHA-256 of the secret.
        created_s, expires_s: Unix time.
        created_by: who made it.
        revoked_s: Unix time, or None.
    """

    id: str
    name: str
    role: Role
    digest: bytes = field(repr=False)
    created_s: float
    created_by: str
    expires_s: float
    revoked_s: float | None = None


@dataclass(frozen=True, slots=True)
class Presented:
    """What somebody shows to be let in: the id, and the digest of the secret."""

    id: str
    digest: bytes = field(repr=False)


def format_token(random: bytes) -> tuple[str, Presented]:
    """A new token's text, and what is kept of it.

    Args:
        random: ID_LENGTH bytes for the id and SECRET_BYTES for the secret, uniformly random.
    """
    if len(random) != ID_LENGTH + SECRET_BYTES:
        raise ValueError(f"{len(random)} random bytes; {ID_LENGTH + SECRET_BYTES} are needed")
    token_id = "".join(_ID_ALPHABET[byte % len(_ID_ALPHABET)] for byte in random[:ID_LENGTH])
    secret = random[ID_LENGTH:]
    text = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    return f"{PREFIX}_{token_id}_{text}", Presented(token_id, hashlib.sha256(secret).digest())


def parse_token(text: str) -> Presented | None:
    """What a token's text presents; None for what is no token."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        return None
    try:
        secret = base64.b64decode(match[2] + "=", altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    return Presented(match[1], hashlib.sha256(secret).digest())


def name_problem(name: str) -> str:
    """Why a token can't have this name; "" when it can."""
    if not 1 <= len(name) <= NAME_LENGTH_MAX:
        return f"a name has 1 to {NAME_LENGTH_MAX} characters"
    if _NAME.fullmatch(name) is None:
        return "a name is made of letters, digits and . _ @ -, and begins with one of the first two"
    return ""


def problem_of(token: Token | None, digest: bytes, *, now_s: float) -> str:
    """Why a presented token is refused; "" when it is good.

    Whoever does not know the secret learns nothing but that: expiry and revocation are told only
    to the token's owner.

    Args:
        token: what is kept under the presented id; None for nothing.
        digest: of the presented secret.
        now_s: Unix time.
    """
    if token is None or not hmac.compare_digest(token.digest, digest):
        return "the token is not known"
    if token.revoked_s is not None:
        return "the token was revoked"
    if now_s >= token.expires_s:
        return "the token has expired"
    return ""
