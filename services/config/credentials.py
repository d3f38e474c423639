"""The certificates and keys that a configuration names, and whether they can be used."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from services.config.errors import ConfigError, Problem, ProblemKind
from services.config.kinds import DatabaseMode
from services.config.model import Config
from services.config.notes import Note
from services.config.origins import BUILT_IN, Origin
from services.security.credentials_model import Credential, Severity, TlsFiles, TlsUse

# Addresses that say nothing about the names that clients use.
_ANY_HOST = ("0.0.0.0", "::", "127.0.0.1", "::1", "localhost")  # noqa: S104 - compared with, not bound


def tls_files(config: Config) -> tuple[TlsFiles, ...]:
    """The certificates of a configuration, as far as it uses them."""
    found = [*_api(config)]
    if config.database.mode is DatabaseMode.EXTERNAL:
        found += [*_postgres(config), *_redis(config)]
    return tuple(found)


def check_tls_files(config: Config) -> tuple[Credential, ...]:
    """Look at all certificates; loads the cryptography only where there are any."""
    files = tls_files(config)
    if not files:
        return ()
    from services.security.credential_files import check_files

    now_s = time.time()
    return tuple(check_files(it, now_s=now_s) for it in files)


def examine(
    config: Config, origins: Mapping[str, Origin]
) -> tuple[tuple[Problem, ...], tuple[Note, ...]]:
    """What is wrong with the certificates: what can't be used, and what is to be remarked on.

    One that has run out is no problem: a node that is started at night with it comes up, and says
    so.
    """
    keys = {it.name: it.keys[0] for it in tls_files(config)}
    problems, notes = [], []
    for credential in check_tls_files(config):
        key = keys[credential.name]
        for finding in credential.findings:
            if finding.severity is Severity.ERROR:
                expected = "a certificate and key that can be used"
                origin = origins.get(key, BUILT_IN)
                problems.append(
                    Problem(ProblemKind.CREDENTIAL, origin, finding.message, expected, key)
                )
            else:
                notes.append(Note(key, finding.message))
    return tuple(problems), tuple(notes)


def require_usable(config: Config, origins: Mapping[str, Origin]) -> None:
    """Refuse what can't be used, before anything begins to use it.

    Raises:
        ConfigError: lists every finding that is an error.
    """
    problems, _notes = examine(config, origins)
    if problems:
        raise ConfigError(problems)


def _api(config: Config) -> list[TlsFiles]:
    tls, found = config.api.tls, []
    if tls.cert_file is not None:
        found.append(
            TlsFiles(
                name="api",
                use=TlsUse.SERVER,
                cert_file=str(tls.cert_file),
                key_file=_text(tls.key_file),
                hosts=() if config.api.host in _ANY_HOST else (config.api.host,),
                keys=("api.tls.certFile",),
            )
        )
    return found + _authority("api.clients", "api.tls.clientCaFile", tls.client_ca_file)


def _postgres(config: Config) -> list[TlsFiles]:
    postgres, section = config.database.postgres, "database.postgres"
    found = _authority(f"{section}.server", f"{section}.sslRootCert", postgres.ssl_root_cert)
    return found + _client(section, f"{section}.sslCert", postgres.ssl_cert, postgres.ssl_key)


def _redis(config: Config) -> list[TlsFiles]:
    tls, section = config.database.redis.tls, "database.redis"
    if not tls.enabled:
        return []
    found = _authority(f"{section}.server", f"{section}.tls.caFile", tls.ca_file)
    return found + _client(section, f"{section}.tls.certFile", tls.cert_file, tls.key_file)


def _authority(name: str, key: str, path: Path | None) -> list[TlsFiles]:
    if path is None:
        return []
    return [TlsFiles(name=name, use=TlsUse.AUTHORITY, cert_file=str(path), keys=(key,))]


def _client(name: str, key: str, path: Path | None, key_file: Path | None) -> list[TlsFiles]:
    if path is None:
        return []
    return [
        TlsFiles(
            name=name,
            use=TlsUse.CLIENT,
            cert_file=str(path),
            key_file=_text(key_file),
            keys=(key,),
        )
    ]


def _text(path: Path | None) -> str:
    return "" if path is None else str(path)
