"""TLS and certificate login against a real PostgreSQL that listens on the loopback."""

from __future__ import annotations

import asyncio
import datetime as dt
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.data.errors import DatabaseRefusedError
from services.data.model import PostgresSettings
from services.data.postgres import connect
from tests.fixtures.fix_node import free_ports
from tests.fixtures.fix_postgres import SERVICE_USER, PostgresServer, postgres_programs

pytestmark = pytest.mark.postgres


class Authority:
    """Signs certificates into a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = self._write(name, self._sign(self._name, self._key, is_authority=True), None)

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for a name, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        file = self._write(name, self._sign(subject, key, is_authority=False), key)
        return file, file.with_suffix(".key")

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _write(
        self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | None
    ) -> Path:
        file = self._directory / f"{name}.crt"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        if key is not None:
            secret = file.with_suffix(".key")
            secret.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            secret.chmod(0o600)
        return file


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom the server and its clients trust."""
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


@pytest.fixture(scope="module")
def settings(authority: Authority) -> Iterator[PostgresSettings]:
    """How to reach a server that takes certificates of the authority, and nothing else."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL's programs are not installed (/usr/lib/postgresql/*/bin)")
    server = PostgresServer(programs)
    (port,) = free_ports(1)
    directory = Path(server.socket_dir)
    try:
        for source in (*authority.issue("localhost"), authority.file):
            shutil.copy(source, directory / source.name)
            shutil.chown(directory / source.name, SERVICE_USER, SERVICE_USER)
        (directory / "data/pg_hba.conf").write_text(
            "local all all trust\nhostssl all novacron 127.0.0.1/32 cert\n"
        )
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            for name, value in (
                ("listen_addresses", "127.0.0.1"),
                ("ssl_cert_file", str(directory / "localhost.crt")),
                ("ssl_key_file", str(directory / "localhost.key")),
                ("ssl_ca_file", str(directory / "authority.crt")),
                ("ssl", "on"),
            ):
                admin.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        server.stop()
        server.options = {"listen_addresses": "127.0.0.1", "port": str(port)}
        server.start()
        certificate, key = authority.issue("novacron")
        yield PostgresSettings(
            host="localhost",
            port=port,
            database="postgres",
            ssl_mode="verify-full",
            ssl_root_cert=str(authority.file),
            ssl_cert=str(certificate),
            ssl_key=str(key),
        )
    finally:
        server.remove()


def _connect(settings: PostgresSettings) -> bool:
    async def work() -> bool:
        async with await connect(settings, application="t") as connection:
            return bool(connection.pgconn.ssl_in_use)

    return asyncio.run(work())


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_certificate_logs_in_over_tls(settings: PostgresSettings, mode: str) -> None:
    """Without any password, in each mode that wants TLS."""
    assert _connect(replace(settings, ssl_mode=mode))


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"ssl_mode": "disable"}, "pg_hba.conf"),
        ({"ssl_cert": "", "ssl_key": ""}, "sslCert and sslKey"),
        ({"host": "127.0.0.1"}, "is for another host name"),
        ({"ssl_root_cert": "/nowhere/ca.crt"}, "sslRootCert"),
        ({"ssl_root_cert": "other"}, "is not trusted by this host"),
        ({"ssl_key": "open"}, "chmod 600"),
        ({"ssl_key": "other"}, "belongs to sslCert"),
        ({"user": "somebody"}, "pg_hba.conf"),
    ],
)
def test_what_does_not_fit_is_refused_with_advice(
    settings: PostgresSettings, authority: Authority, tmp_path: Path, change: dict[str, str],
    advice: str,
) -> None:  # fmt: skip
    """A person has to change something, and is told what; nothing is tried again."""
    if change.get("ssl_root_cert") == "other":
        change = {"ssl_root_cert": str(Authority(tmp_path, "other").file)}
    if change.get("ssl_key") == "open":
        shutil.copy(settings.ssl_key, tmp_path / "open.key")
        (tmp_path / "open.key").chmod(0o644)
        change = {"ssl_key": str(tmp_path / "open.key")}
    if change.get("ssl_key") == "other":
        change = {"ssl_key": str(authority.issue("another")[1])}

    with pytest.raises(DatabaseRefusedError) as caught:
        _connect(replace(settings, **change))  # type: ignore[arg-type]  # texts, all of them

    assert advice in str(caught.value)
