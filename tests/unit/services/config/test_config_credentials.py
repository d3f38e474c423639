"""The certificates that a configuration names, looked at before a node starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from services.config.commands import config_group
from services.config.credentials import examine, require_usable, tls_files
from services.config.errors import ConfigError, ProblemKind
from services.security.credentials_model import TlsUse
from tests.fixtures.issued_certificates import DAY, authority, issue

ALL = """
api:
  host: 192.0.2.1
  tls: {certFile: /e/a.pem, keyFile: /e/a.key, clientCaFile: /e/clients.pem}
database:
  postgres: {sslMode: verify-full, sslRootCert: /e/ca.pem, sslCert: /e/p.pem, sslKey: /e/p.key}
  redis: {tls: {enabled: true, caFile: /e/ca.pem, certFile: /e/r.pem, keyFile: /e/r.key}}
"""


def write_api(directory, place: Path, **changes) -> None:
    """A configuration whose API has a certificate of its own."""
    place.chmod(0o700)
    certificate, key = issue("node", authority(), **changes).write(place, "api")
    directory.write(lab=f"api: {{tls: {{certFile: '{certificate}', keyFile: '{key}'}}}}")


def test_all_certificates_are_known(directory) -> None:
    """Those of the API, of PostgreSQL and of Redis, with what each is for."""
    directory.write(lab=ALL)

    found = {it.name: it for it in tls_files(directory.load().config)}

    assert {name: it.use for name, it in found.items()} == {
        "api": TlsUse.SERVER,
        "api.clients": TlsUse.AUTHORITY,
        "database.postgres.server": TlsUse.AUTHORITY,
        "database.postgres": TlsUse.CLIENT,
        "database.redis.server": TlsUse.AUTHORITY,
        "database.redis": TlsUse.CLIENT,
    }
    assert found["api"].hosts == ("192.0.2.1",)
    assert found["database.postgres"].key_file == "/e/p.key"


def test_an_ordinary_node_has_none(directory) -> None:
    """Then nothing is read, and no cryptography is loaded."""
    loaded = directory.load()

    assert tls_files(loaded.config) == ()
    require_usable(loaded.config, loaded.origins)


def test_what_can_not_be_used_is_refused(directory, tmp_path: Path) -> None:
    """With file, line and reason, before anything of the node starts."""
    write_api(directory, tmp_path)
    loaded = directory.load()
    require_usable(loaded.config, loaded.origins)
    Path(str(loaded.config.api.tls.key_file)).chmod(0o644)

    with pytest.raises(ConfigError) as caught:
        require_usable(loaded.config, loaded.origins)

    (problem,) = caught.value.problems
    assert (problem.kind, problem.key) == (ProblemKind.CREDENTIAL, "api.tls.certFile")
    assert "others may read" in problem.found


def test_what_has_run_out_is_not(directory, tmp_path: Path) -> None:
    """A node that is started at night with an expired certificate comes up, and says so."""
    write_api(directory, tmp_path, begin=-2 * DAY, end=-DAY)
    loaded = directory.load()

    require_usable(loaded.config, loaded.origins)
    problems, (note,) = examine(loaded.config, loaded.origins)
    assert problems == ()
    assert (note.key, "has run out" in note.text) == ("api.tls.certFile", True)


def test_config_check_looks_at_certificates(directory, tmp_path: Path) -> None:
    """What a start would refuse, the check refuses, with the same exit code as for a bad key."""
    write_api(directory, tmp_path, end=5 * DAY)
    arguments = ["check", "--config-dir", str(directory.path), "--environment", "lab"]

    good = CliRunner().invoke(config_group, arguments)
    (tmp_path / "api.key").chmod(0o644)
    bad = CliRunner().invoke(config_group, arguments)

    assert good.exit_code == 0
    assert "note: api.tls.certFile: api runs out in 5 days" in good.output
    assert bad.exit_code == 2
    assert "others may read" in bad.output
