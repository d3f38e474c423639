"""Vault's providers against a server that speaks the documented API over a real socket."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.security.secrets.errors import (
    ProviderUnavailableError,
    RotationRefusedError,
    SecretDeniedError,
    SecretError,
    SecretMissingError,
    SecretUnusableError,
)
from services.security.secrets.reference import parse_name
from services.security.secrets.registry import Providers
from services.security.secrets.settings import SecretsSettings, VaultAuth, VaultSettings
from tests.fixtures.http_double import Answer
from tests.fixtures.issued_certificates import authority, issue
from tests.fixtures.vault_double import ROLE_ID, SECRET_ID, VaultDouble

pytestmark = pytest.mark.process
TIMEOUT_S = 0.5


@pytest.fixture
def vault() -> Iterator[VaultDouble]:
    """A server with a secret of two fields."""
    server = VaultDouble()
    server.put("novacron/db", value="old", user="novacron")
    server.put("novacron/db", value="hush\n", user="novacron")
    yield server
    server.close()


def providers(vault: VaultDouble, environ: dict[str, str] | None = None, **changes) -> Providers:
    """The configured providers, with AppRole unless told otherwise."""
    settings = {"role_id": ROLE_ID, "secret_id": SECRET_ID, **changes}
    return Providers(
        SecretsSettings(timeout_s=TIMEOUT_S, vault=VaultSettings(address=vault.url, **settings)),
        environ or {},
    )


def get(found: Providers, name: str) -> str:
    """A value, as everybody gets it: with a deadline."""
    parsed = parse_name(name)
    return found.bounded(parsed.provider).run(lambda: found.get(parsed), 2.0).value


def test_a_field_of_the_newest_version_is_read(vault: VaultDouble) -> None:
    """The value is the provider's, a newline at its end included, with version and date."""
    found = providers(vault).get(parse_name("vault/novacron/db"))

    assert (found.value, found.version) == ("hush\n", "2")
    assert found.created_s == pytest.approx(1772359200.123, abs=0.001)
    assert get(providers(vault), "vault/novacron/db#user") == "novacron"
    assert "hush" not in repr(found)


def test_one_login_serves_many_reads(vault: VaultDouble) -> None:
    """The session is shared by both providers, and the token is not asked for again."""
    found = providers(vault)

    for name in (
        "vault/novacron/db",
        "vault/novacron/db",
        "vault-api/database/static-creds/novacron#password",
    ):
        get(found, name)

    assert [it.path for it in vault.asked].count("/v1/auth/approle/login") == 1


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("vault/gone", SecretMissingError, "no secret secret/gone"),
        ("vault/novacron/db#gone", SecretMissingError, "no field gone"),
        ("vault/deleted", SecretMissingError, "deleted at 2026-03-02"),
        ("vault/empty", SecretUnusableError, "is empty"),
        ("vault/number", SecretUnusableError, "holds a int"),
        ("vault/denied", SecretDeniedError, "policy lacks the right"),
    ],
)
def test_what_is_not_there_is_told_apart(
    vault: VaultDouble, name: str, error: type[SecretError], sentence: str
) -> None:
    """Missing, deleted, denied and unusable are four things."""
    vault.versions["deleted"] = [{"value": "x"}, None]
    vault.put("empty", value="")
    vault.put("number", value=3)
    vault.denied.add("secret/data/denied")

    with pytest.raises(error, match=sentence):
        get(providers(vault), name)


def test_a_revoked_token_is_replaced(vault: VaultDouble) -> None:
    """When the token is gone, the next read logs in again."""
    found = providers(vault)
    get(found, "vault/novacron/db")
    vault.tokens.clear()

    assert get(found, "vault/novacron/db") == "hush\n"
    assert [it.path for it in vault.asked].count("/v1/auth/approle/login") == 2


def test_a_secret_id_that_was_replaced_is_read_anew(vault: VaultDouble, tmp_path: Path) -> None:
    """The credential of the provider itself comes from a file, each time that it logs in."""
    tmp_path.chmod(0o700)
    file = tmp_path / "secret-id"
    file.write_text(f"{SECRET_ID}\n")
    file.chmod(0o600)
    settings = SecretsSettings(
        directory=str(tmp_path),
        vault=VaultSettings(
            address=vault.url, role_id=ROLE_ID, secret_id="${secret:file/secret-id}"
        ),
    )
    found = Providers(settings, {})
    get(found, "vault/novacron/db")

    vault.secret_id = "another"
    vault.tokens.clear()
    with pytest.raises(SecretDeniedError, match="invalid role or secret ID"):
        get(found, "vault/novacron/db")
    file.write_text("another")

    assert get(found, "vault/novacron/db") == "hush\n"


def test_a_token_of_ones_own(vault: VaultDouble) -> None:
    """The method token uses the token as it is, and says when it was revoked."""
    found = providers(vault, auth=VaultAuth.TOKEN, token="root")
    assert get(found, "vault/novacron/db") == "hush\n"
    vault.tokens.clear()

    with pytest.raises(SecretDeniedError, match="revoked"):
        get(found, "vault/novacron/db")


def test_the_environment_has_no_say(vault: VaultDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """VAULT_TOKEN and VAULT_ADDR, which the library would take, are not used."""
    monkeypatch.setenv("VAULT_TOKEN", "root")
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:1")

    with pytest.raises(SecretDeniedError, match="invalid role"):
        get(providers(vault, secret_id="wrong"), "vault/novacron/db")


def test_kubernetes(vault: VaultDouble, tmp_path: Path) -> None:
    """The service account's token is read at each login, since the cluster replaces it."""
    file = tmp_path / "token"
    file.write_text("jwt-1\n")
    found = providers(vault, auth=VaultAuth.KUBERNETES, kubernetes_role="node", jwt_file=str(file))
    assert get(found, "vault/novacron/db") == "hush\n"

    vault.jwt = "jwt-2"
    vault.tokens.clear()
    file.write_text("jwt-2\n")

    assert get(found, "vault/novacron/db") == "hush\n"


def test_a_namespace_is_named(vault: VaultDouble) -> None:
    """Every request carries the namespace."""
    vault.namespace = "team"

    assert get(providers(vault, namespace="team"), "vault/novacron/db") == "hush\n"


def test_a_token_is_renewed_before_it_ends(vault: VaultDouble) -> None:
    """After two thirds of its life; a token that can't be renewed is replaced."""
    vault.ttl_s = 3
    found = providers(vault)
    get(found, "vault/novacron/db")
    provider = found.provider("vault")

    pause_s = provider.maintain()
    assert pause_s == pytest.approx(2.0, abs=0.1)
    time.sleep(pause_s + 0.01)
    provider.maintain()
    token = next(it for name, it in vault.tokens.items() if name != "root")
    assert token.renewals == 1

    vault.tokens.clear()
    time.sleep(2.05)
    provider.maintain()
    assert [it.path for it in vault.asked].count("/v1/auth/approle/login") == 2


def test_a_lease_is_kept_and_renewed(vault: VaultDouble) -> None:
    """Two fields of one dynamic credential belong together, for as long as the lease lasts."""
    vault.lease_s = 2
    found = providers(vault)
    name = "vault-api/database/creds/novacron"

    user, password = get(found, f"{name}#username"), get(found, f"{name}#password")
    time.sleep(1.4)
    found.provider("vault-api").maintain()
    time.sleep(1.0)

    assert get(found, f"{name}#username") == user
    assert password.removeprefix("dynamic-") == user.removeprefix("v-")
    vault.leases.clear()
    time.sleep(1.4)
    found.provider("vault-api").maintain()
    assert get(found, f"{name}#username") != user


def test_a_static_credential_ends_when_vault_rotates_it(vault: VaultDouble) -> None:
    """Its time to live is the value's end."""
    found = providers(vault).get(parse_name("vault-api/database/static-creds/novacron#password"))

    assert found.value == "static-1"
    assert found.expires_s == pytest.approx(time.time() + 1800, abs=5)


def test_rotation_writes_the_next_version(vault: VaultDouble) -> None:
    """The other fields stay, and what somebody else wrote in between is not overwritten."""
    found = providers(vault)

    assert found.provider("vault").rotate("novacron/db", "new").version == "3"
    assert vault.versions["novacron/db"][-1] == {"value": "new", "user": "novacron"}

    read = vault.answer

    def answer(asked):
        """Somebody else writes between the read and the write."""
        if asked.method in ("POST", "PUT") and asked.path.startswith("/v1/secret"):
            vault.put("novacron/db", value="theirs")
        return read(asked)

    vault.answer = answer
    with pytest.raises(RotationRefusedError, match="check-and-set"):
        found.provider("vault").rotate("novacron/db", "mine")
    assert vault.versions["novacron/db"][-1] == {"value": "theirs"}


def test_sealed_and_away_may_pass(vault: VaultDouble) -> None:
    """Both are worth another try, and health says which."""
    found = providers(vault)
    vault.is_sealed = True

    with pytest.raises(ProviderUnavailableError, match="sealed"):
        get(found, "vault/novacron/db")
    assert "sealed" in found.provider("vault").health()
    vault.is_sealed = False
    assert found.provider("vault").health() == ""
    vault.close()
    with pytest.raises(ProviderUnavailableError, match="not answer"):
        get(found, "vault/novacron/db")


def test_a_slow_server_is_left(vault: VaultDouble) -> None:
    """A server that answers late, or a byte now and then, holds nobody beyond the deadline."""
    vault.delay_s = 5.0
    started_s = time.monotonic()
    with pytest.raises(ProviderUnavailableError):
        get(providers(vault), "vault/novacron/db")
    vault.delay_s, vault.drip_s = 0.0, 0.3
    name, found = parse_name("vault/novacron/db"), providers(vault)
    with pytest.raises(ProviderUnavailableError, match="did not answer in 1 s"):
        found.bounded("vault").run(lambda: found.get(name), 1.0)

    assert time.monotonic() - started_s < 4.0


def test_a_server_of_another_authority_is_refused(tmp_path: Path) -> None:
    """TLS is verified against caFile."""
    ours, theirs = authority("ours"), authority("theirs")
    certificate = issue("vault", theirs, hosts=("127.0.0.1",)).write(tmp_path, "vault")
    ca, _ = ours.write(tmp_path, "ours")
    right, _ = theirs.write(tmp_path, "theirs")
    server = VaultDouble(certificate=certificate)
    server.put("db", value="hush")

    with pytest.raises(ProviderUnavailableError, match="caFile"):
        get(providers(server, ca_file=str(ca)), "vault/db")

    assert get(providers(server, ca_file=str(right)), "vault/db") == "hush"
    server.close()


@pytest.mark.parametrize(
    "garbage",
    [
        [],
        {},
        3,
        None,
        {"data": 3},
        {"data": {"metadata": 3, "data": 3}},
        {"data": {"metadata": {}}},
    ],
)
def test_an_answer_that_is_none_is_no_crash(vault: VaultDouble, garbage: object) -> None:
    """Whatever a server sends, it ends in an error with a name."""
    found = providers(vault, auth=VaultAuth.TOKEN, token="root")
    get(found, "vault/novacron/db")
    answers = {"content": garbage, "status": 200}
    vault.answer = lambda _asked: Answer(**answers)

    for name in ("vault/novacron/db", "vault-api/database/creds/novacron#password"):
        with pytest.raises(SecretError):
            get(found, name)
    answers["status"] = 500
    with pytest.raises(ProviderUnavailableError):
        get(found, "vault/novacron/db")


@pytest.mark.parametrize("garbage", [[], {}, None, {"auth": 3}, {"auth": {"client_token": 1}}])
def test_a_login_that_is_none_is_no_crash(vault: VaultDouble, garbage: object) -> None:
    """The same for the answer to a login."""
    vault.answer = lambda _asked: Answer(200, garbage)

    with pytest.raises(SecretError):
        get(providers(vault), "vault/novacron/db")


if "NOVACRON_TEST_VAULT_ADDR" in os.environ:  # for whoever has a real one; not a skip where not

    def test_a_real_vault() -> None:
        """Against the server that NOVACRON_TEST_VAULT_ADDR names, with a token that may write."""
        settings = VaultSettings(
            address=os.environ["NOVACRON_TEST_VAULT_ADDR"],
            auth=VaultAuth.TOKEN,
            token=os.environ["NOVACRON_TEST_VAULT_TOKEN"],
        )
        found = Providers(SecretsSettings(vault=settings), {})
        name = os.environ.get("NOVACRON_TEST_VAULT_SECRET", "novacron-test")

        changed = found.provider("vault").rotate(name, "hush")

        assert changed.value == "hush"
        assert found.provider("vault").health() == ""
