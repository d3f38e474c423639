"""References to secrets: which are taken, and what is said of the others."""

from __future__ import annotations

import pytest

from services.security.secrets.errors import SecretReferenceError
from services.security.secrets.reference import (
    NAME_LENGTH_MAX,
    SecretName,
    is_reference,
    parse_name,
    parse_reference,
)


@pytest.mark.parametrize(
    ("text", "provider", "name"),
    [
        ("${secret:env/DB_PASSWORD}", "env", "DB_PASSWORD"),
        ("${secret:file/db/password}", "file", "db/password"),
        ("${secret:vault/team/db#password}", "vault", "team/db#password"),
        ("${secret:vault-api/database/static-creds/n}", "vault-api", "database/static-creds/n"),
        ("${secret:aws/arn:aws:secretsmanager:eu:1:secret:x-1#a}", "aws", None),
        ("${secret:azure/db-password}", "azure", "db-password"),
    ],
)
def test_references_of_all_providers(text: str, provider: str, name: str | None) -> None:
    """Paths, fields, ARNs and variables are names."""
    found = parse_reference(text)

    assert found.provider == provider
    assert found.name == (name or text.removeprefix("${secret:aws/").removesuffix("}"))
    assert f"${{secret:{found}}}" == text


@pytest.mark.parametrize(
    "name",
    [
        "",
        "vault",
        "vault/",
        "nobody/x",
        "Vault/x",
        "file//x",
        "file/x/",
        "file/../x",
        "file/a/./b",
        "file/..",
        "vault/a#",
        "vault/a#b#c",
        "file/a b",
        "file/a\nb",
        "file/a\0b",
        "file/ä",
        "file/-x",
        "file/" + "a" * (NAME_LENGTH_MAX + 1),
    ],
)
def test_anything_else_is_refused(name: str) -> None:
    """No path leads upwards, and nothing needs escaping later."""
    with pytest.raises(SecretReferenceError):
        parse_name(name)


@pytest.mark.parametrize("text", ["${secret:env/A} ", "${secret:env/A}x", "${secret:env/A", "x"])
def test_a_reference_is_the_whole_value(text: str) -> None:
    """Text around a reference would make a part of a password of it."""
    with pytest.raises(SecretReferenceError):
        parse_reference(text)


def test_the_longest_name() -> None:
    """The limit itself is accepted."""
    assert parse_name("file/" + "a" * NAME_LENGTH_MAX).provider == "file"


def test_what_is_meant_as_a_reference() -> None:
    """Only the beginning tells; a malformed one is an error and not a password."""
    assert is_reference("${secret:")
    assert not is_reference("secret:vault/x")
    assert not is_reference("$${secret:vault/x}")


def test_which_are_local() -> None:
    """What needs no network may open the others."""
    assert SecretName("file", "x").is_local
    assert not SecretName("vault", "x").is_local
