"""References to secrets in a configuration: kept, shown, checked, and put in place at the end."""

from __future__ import annotations

import pytest

from services.config.errors import ConfigError, ProblemKind
from services.config.loader import changes
from services.config.rules_secrets import secret_names
from services.config.secrets import secrets_settings, with_secrets
from services.security.secrets.errors import ProviderUnavailableError
from services.security.secrets.memory import MemoryProvider
from services.security.secrets.provider import Secret
from services.security.secrets.registry import Providers
from services.security.secrets.settings import SecretsSettings, VaultAuth

KEY = "database.postgres.password"
REFERENCE = "${secret:vault/db#password}"
VAULT = """
security:
  secrets:
    vault: {address: 'https://vault:8200', roleId: role, secretId: '${secret:file/vault}'}
"""
WITH_REFERENCE = f"database: {{postgres: {{password: '{REFERENCE}'}}}}\n{VAULT}"


def place(directory, provider: MemoryProvider, text: str = WITH_REFERENCE, **environ: str):
    """The configuration with its secrets in place, from a provider in memory."""
    directory.write(lab=text)
    loaded = directory.load(environ)
    providers = Providers(SecretsSettings(), {}, {"vault": provider})
    return with_secrets(loaded.config, loaded.origins, {}, providers=providers, tell=print)


def test_a_reference_is_kept_and_shown(directory) -> None:
    """Loading needs no provider, and showing tells where a password is."""
    directory.write(lab=WITH_REFERENCE)

    loaded = directory.load()

    assert loaded.values()[KEY] == REFERENCE
    assert loaded.values()["security.secrets.vault.secretId"] == "${secret:file/vault}"
    assert {key: str(name) for key, name in secret_names(loaded.config).items()} == {
        KEY: "vault/db#password"
    }
    assert not [note for note in loaded.notes if note.key == KEY]


def test_a_variable_may_refer_too(directory) -> None:
    """Containers are given variables and not files."""
    directory.write(lab=VAULT)

    assert directory.load({"NOVACRON_DATABASE_POSTGRES_PASSWORD": REFERENCE}).values()[KEY] == (
        REFERENCE
    )


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("${secret:nobody/x}", KEY, "names no provider"),
        ("${secret:vault/x} ", KEY, "all of the value"),
        ("${secret:file/../x}", KEY, "no empty parts"),
    ],
)
def test_a_malformed_reference_is_told(directory, text: str, key: str, expected: str) -> None:
    """It is never taken for a password."""
    directory.write(lab=f"database: {{postgres: {{password: '{text}'}}}}")

    problem = directory.problem()

    assert (problem.kind, problem.key) == (ProblemKind.REFERENCE, key)
    assert expected in problem.expected


def test_only_secrets_may_be_references(directory) -> None:
    """A name or a port in a provider would be a value that nobody sees."""
    directory.write(lab="platform: {name: '${secret:file/x}'}")

    assert "only passwords" in directory.problem().expected


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("vault: {address: 'https://v'}", "security.secrets.vault.roleId", "a roleId"),
        (
            "vault: {address: 'https://v', auth: token}",
            "security.secrets.vault.auth",
            "a token, which token logs in with",
        ),
        (
            "vault: {address: 'http://v', auth: kubernetes, kubernetesRole: r}",
            "security.secrets.vault.address",
            "https, or a server of this host",
        ),
        (
            "vault: {address: 'https://v', roleId: r, secretId: '${secret:aws/x}'}",
            "security.secrets.vault.secretId",
            "a secret of env, systemd or file",
        ),
        ("aws: {accessKeyId: a}", "security.secrets.aws.accessKeyId", "both or neither"),
        (
            "azure: {clientSecret: a, vaultUrl: 'https://v'}",
            "security.secrets.azure.clientSecret",
            "tenantId and clientId",
        ),
        ("azure: {vaultUrl: 'https://u:p@v'}", "security.secrets.azure.vaultUrl", "a URL"),
        ("azure: {vaultUrl: 'ftp://v'}", "security.secrets.azure.vaultUrl", "a URL"),
        ("azure: {vaultUrl: 'https://v?x'}", "security.secrets.azure.vaultUrl", "a URL"),
        ("azure: {vaultUrl: 'https://v:x'}", "security.secrets.azure.vaultUrl", "a URL"),
    ],
)
def test_settings_of_providers_that_do_not_fit(directory, text: str, key: str, expected) -> None:
    """What a provider needs is known before it is asked."""
    directory.write(lab=f"security: {{secrets: {{{text}}}}}")

    problems = {problem.key: problem.expected for problem in directory.problems()}

    assert expected in problems[key]


@pytest.mark.parametrize("address", ["http://127.0.0.1:8200", "http://[::1]:8200", "https://v"])
def test_an_agent_on_this_host_needs_no_tls(directory, address: str) -> None:
    """What never leaves the host may be plain HTTP."""
    directory.write(
        lab=f"security: {{secrets: {{vault: {{address: '{address}', auth: token, token: t}}}}}}"
    )

    assert directory.load().config.security.secrets.vault.address == address


def test_a_reference_to_a_provider_that_is_not_there(directory) -> None:
    """Its missing setting is named."""
    directory.write(lab=f"database: {{redis: {{password: '{REFERENCE}'}}}}")

    problem = directory.problem()

    assert "security.secrets.vault.address, since the value is in vault" in problem.expected


def test_values_are_put_in_place(directory) -> None:
    """The tree is built from the value; the security process is told the name alone."""
    found = place(directory, MemoryProvider(values={"db#password": "hush"}))

    password = found.config.database.postgres.password
    assert password is not None
    assert password.get_secret_value() == "hush"
    assert found.part is not None
    assert [(use.key, use.name) for use in found.part.uses] == [(KEY, "vault/db#password")]
    assert "hush" not in repr(found)


def test_a_changed_value_is_a_change(directory) -> None:
    """A reload tells the key whose secret is another one, and a fingerprint follows the value."""
    old = place(directory, MemoryProvider(values={"db#password": "old"}))
    same = place(directory, MemoryProvider(values={"db#password": "old"}))
    new = place(directory, MemoryProvider(values={"db#password": "new"}))

    assert changes(old.config, same.config) == ()
    assert old.part == same.part
    assert changes(old.config, new.config) == (KEY,)
    assert old.part.uses != new.part.uses


def test_every_secret_that_can_not_be_had_is_told(directory) -> None:
    """All of them at once, with key, reference and reason, and without any value."""
    provider = MemoryProvider(values={"db#password": "hush"})
    text = f"""
database:
  postgres: {{password: '{REFERENCE}'}}
  redis: {{password: '${{secret:vault/gone}}'}}
{VAULT}"""

    with pytest.raises(ConfigError) as caught:
        place(directory, provider, text)

    (problem,) = caught.value.problems
    assert problem.key == "database.redis.password"
    assert "${secret:vault/gone}, which can't be had: there is no gone" in problem.found
    assert "hush" not in str(caught.value)


def test_without_references_there_is_nothing_to_fetch(directory) -> None:
    """An ordinary node never makes a provider."""
    provider = MemoryProvider()

    found = place(directory, provider, "database: {postgres: {password: plain}}")

    assert found.part is None
    assert provider.reads == 0


def test_settings_reach_the_providers(directory) -> None:
    """Each key of the section is what the provider is told, references as they stand."""
    directory.write(lab=f"{VAULT}    timeout: 2s\n    directory: /srv/secrets\n")

    found = secrets_settings(directory.load().config, {"CREDENTIALS_DIRECTORY": "/run/c"})

    assert (found.timeout_s, found.directory) == (2.0, "/srv/secrets")
    assert found.credentials_directory == "/run/c"
    assert (found.vault.auth, found.vault.role_id) == (VaultAuth.APPROLE, "role")
    assert found.vault.secret_id == "${secret:file/vault}"


def test_a_literal_that_looks_like_a_reference_can_be_written(directory) -> None:
    """As with variables, two dollar signs write one."""
    directory.write(lab="database: {postgres: {password: '$${secret:x}'}}")

    password = directory.load().config.database.postgres.password

    assert password.get_secret_value() == "${secret:x}"


def test_a_provider_that_is_away_is_waited_for(directory) -> None:
    """What may pass is tried until the time is over, and told."""

    class Shy(MemoryProvider):
        """Comes at the second question."""

        def get(self, name: str) -> Secret:
            """Away once."""
            if self.reads == 0:
                self.reads += 1
                raise ProviderUnavailableError("sealed")
            return super().get(name)

    provider = Shy(values={"db#password": "hush"})
    directory.write(lab=WITH_REFERENCE)
    loaded, told = directory.load(), []

    with_secrets(
        loaded.config,
        loaded.origins,
        {},
        providers=Providers(SecretsSettings(), {}, {"vault": provider}),
        tell=told.append,
        sleep=lambda _pause_s: None,
    )

    assert told == ["waiting for the secret vault/db#password: sealed"]
