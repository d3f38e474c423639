"""API tokens: their form, and who is let in with which."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.messages.access import Role
from services.security.tokens import (
    ID_LENGTH,
    SECRET_BYTES,
    Token,
    format_token,
    name_problem,
    parse_token,
    problem_of,
)

RANDOM = bytes(range(ID_LENGTH + SECRET_BYTES))
TEXT, SHOWN = format_token(RANDOM)
TOKEN = Token(
    id=SHOWN.id,
    name="ci",
    role=Role.VIEWER,
    digest=SHOWN.digest,
    created_s=100.0,
    created_by="operator",
    expires_s=200.0,
)


@given(st.binary(min_size=ID_LENGTH + SECRET_BYTES, max_size=ID_LENGTH + SECRET_BYTES))
def test_a_token_presents_what_was_kept_of_it(random: bytes) -> None:
    """Whatever the random bytes are, the text leads back to the id and the digest."""
    text, kept = format_token(random)

    assert parse_token(text) == kept
    assert random[ID_LENGTH:] not in kept.digest


@pytest.mark.parametrize(
    "text",
    ["", "nova", TEXT[:-1], TEXT + "A", TEXT.upper(), TEXT.replace("nova", "nove"), TEXT + "\n"],
)
def test_what_is_no_token_presents_nothing(text: str) -> None:
    """A cut, longer or otherwise changed text is no token at all."""
    assert parse_token(text) is None


def test_secrets_stay_out_of_reprs() -> None:
    """Neither the digest of a kept token nor of a presented one is shown."""
    assert SHOWN.digest.hex() not in repr(SHOWN) + repr(TOKEN)
    assert repr(SHOWN.digest) not in repr(SHOWN) + repr(TOKEN)


@pytest.mark.parametrize(
    ("token", "digest", "now_s", "problem"),
    [
        (TOKEN, SHOWN.digest, 199.9, ""),
        (TOKEN, SHOWN.digest, 200.0, "the token has expired"),
        (replace(TOKEN, revoked_s=150.0), SHOWN.digest, 160.0, "the token was revoked"),
        (TOKEN, bytes(32), 150.0, "the token is not known"),
        (None, SHOWN.digest, 150.0, "the token is not known"),
        # Nothing is told about a token to somebody who only knows its id.
        (replace(TOKEN, revoked_s=150.0), bytes(32), 160.0, "the token is not known"),
        (TOKEN, bytes(32), 300.0, "the token is not known"),
    ],
)
def test_a_presented_token(token: Token | None, digest: bytes, now_s: float, problem: str) -> None:
    """Good until its last moment, and refused with what its presenter may know."""
    assert problem_of(token, digest, now_s=now_s) == problem


@pytest.mark.parametrize("name", ["ci", "a.b@c-d_1", "A" * 64])
def test_names_of_tokens(name: str) -> None:
    """Names are short words."""
    assert name_problem(name) == ""


@pytest.mark.parametrize("name", ["", "A" * 65, "-a", "a b", "a\nb", "ä", "a;drop"])
def test_names_that_no_token_has(name: str) -> None:
    """What could be mistaken in a list or a log is refused."""
    assert name_problem(name) != ""


def test_roles_include_those_below() -> None:
    """An operator may do what a viewer may, and not what an admin may."""
    assert Role.OPERATOR.includes(Role.VIEWER)
    assert Role.OPERATOR.includes(Role.OPERATOR)
    assert not Role.OPERATOR.includes(Role.ADMIN)
