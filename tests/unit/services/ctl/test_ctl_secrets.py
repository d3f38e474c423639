"""What ``novacronctl secrets`` and ``credentials`` print."""

from __future__ import annotations

from services.ctl.commands.credentials import render_credentials
from services.ctl.commands.secrets import render_check, render_secrets
from services.ctl.styled import to_plain
from services.security.credentials_model import Credential, Finding, Severity
from services.security.secrets.model import (
    ProviderCheck,
    SecretCheck,
    SecretState,
    SecretView,
)

NOW_S = 1_000_000.0
FRESH = SecretView(
    name="vault/db#password",
    state=SecretState.FRESH,
    keys=("database.postgres.password",),
    version="3",
    created_s=NOW_S - 86400,
    confirmed_s=NOW_S - 5,
    expires_s=NOW_S + 3600,
)
STALE = SecretView(
    name="aws/redis",
    state=SecretState.STALE,
    version="0123456789abcdef",
    reason="AWS does not\x1b answer",
    is_applied=False,
)


def text_of(lines: list, width: int = 200) -> str:
    """Lines as they are printed without colour."""
    return "\n".join(to_plain(line) for line in lines)


def test_a_secret_shows_everything_but_its_value() -> None:
    """Name, state, version, ages, end and key; a reason below what is not fresh."""
    shown = text_of(render_secrets([FRESH, STALE], now_s=NOW_S, width=200)).splitlines()

    assert shown[0].split() == [
        "SECRET",
        "STATE",
        "VERSION",
        "AGE",
        "CONFIRMED",
        "EXPIRES",
        "KEY",
    ]
    assert " ".join(shown[1].split()) == (
        "vault/db#password fresh 3 1d 0h 5s in 1h 0m database.postgres.password"
    )
    assert "0123456789ab " in shown[2]
    assert "AWS does not" in shown[3]
    assert "\x1b" not in shown[3]
    assert "runs with another value" in shown[4]


def test_narrow_screens_drop_columns() -> None:
    """The name and the state stay."""
    shown = text_of(render_secrets([FRESH], now_s=NOW_S, width=40)).splitlines()

    assert max(map(len, shown)) <= 40
    assert "fresh" in shown[1]


def test_without_references_the_list_says_so() -> None:
    """An empty table would look like a mistake."""
    assert text_of(render_secrets([], now_s=NOW_S, width=80)) == (
        "the configuration refers to no secrets"
    )


def test_a_check_shows_providers_first() -> None:
    """How each answered, and how long it took."""
    found = SecretCheck(
        providers=(
            ProviderCheck(provider="vault", problem="is sealed", took_s=0.25),
            ProviderCheck(provider="file", problem="", took_s=0.001),
        ),
        secrets=(FRESH,),
    )

    shown = text_of(render_check(found, now_s=NOW_S, width=200)).splitlines()

    assert shown[0].startswith("vault     is sealed  in 0.25 s")
    assert shown[1].startswith("file      well")
    assert shown[3].startswith("SECRET")


def test_credentials_show_ends_and_findings() -> None:
    """Good ones on a line, others with what is wrong below."""
    finding = Finding(severity=Severity.WARNING, code="expires_in_7d", message="api runs out")
    rows = [
        Credential(name="database.postgres.role", kind="password", subject="novacron"),
        Credential(
            name="api",
            kind="certificate",
            subject="CN=node",
            expires_s=NOW_S + 3 * 86400,
            findings=(finding,),
        ),
        Credential(name="old", kind="certificate", expires_s=NOW_S - 7200),
    ]

    shown = text_of(render_credentials(rows, now_s=NOW_S, width=200)).splitlines()

    assert shown[1].split() == ["database.postgres.role", "password", "good", "never", "novacron"]
    assert shown[2].split()[:5] == ["api", "certificate", "warning", "in", "3d"]
    assert shown[3].strip() == "api runs out"
    assert "2h 0m ago" in shown[4]
    assert text_of(render_credentials([], now_s=NOW_S, width=80)) == "the node uses no credentials"
