"""API tokens among the credentials: which ends are told."""

from __future__ import annotations

import pytest

from protocol.messages.access import Role
from services.security.credential_expiry import DAY_S
from services.security.credentials_model import Severity
from services.security.credentials_part import of_token
from services.security.token_model import TokenEntry


@pytest.mark.parametrize(
    ("life_days", "left_days", "is_told"),
    [(30, 8, False), (30, 6, True), (14, 6, True), (13, 6, False), (0.5, 0.1, False)],
)
def test_a_token_near_its_end(life_days: float, left_days: float, is_told: bool) -> None:
    """Seven days ahead, for tokens that live for weeks; the end of short ones is no news."""
    now_s = 1_000_000.0
    entry = TokenEntry(
        id="t1",
        name="ci",
        role=Role.VIEWER,
        state="active",
        created_s=now_s + (left_days - life_days) * DAY_S,
        created_by="operator/root",
        expires_s=now_s + left_days * DAY_S,
    )

    found = of_token(entry, now_s)

    assert (found.name, found.kind, found.subject) == ("token.t1", "token", "ci")
    assert bool(found.findings) is is_told
    assert all(it.severity is Severity.WARNING for it in found.findings)
