"""Certificates and keys: what is found wrong with each, on real ones."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from services.security.credential_expiry import DAY_S, expiry_findings
from services.security.credential_files import check_files, stamps
from services.security.credentials import names_host
from services.security.credentials_model import Severity, TlsFiles, TlsUse
from tests.fixtures.issued_certificates import DAY, Issued, authority, issue, new_key, pem_of

HOUR = dt.timedelta(hours=1)


@pytest.fixture(scope="module")
def root() -> Issued:
    """An authority."""
    return authority()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that only we may write."""
    tmp_path.chmod(0o700)
    return tmp_path


def server(place: Path, issued: Issued, **changes) -> TlsFiles:
    """The files of a server."""
    certificate, key = issued.write(place, "server")
    given = {"cert_file": str(certificate), "key_file": str(key), **changes}
    return TlsFiles(name="api", use=TlsUse.SERVER, **given)


def codes(files: TlsFiles) -> set[str]:
    """What is found."""
    return {it.code for it in check_files(files, now_s=time.time()).findings}


def test_a_good_certificate(place: Path, root: Issued) -> None:
    """Key, chain and names in order: nothing is found, and its end and subject are told."""
    ca, _ = root.write(place, "ca")
    issued = issue("node", root, hosts=("node.example", "192.0.2.1"))
    files = server(place, issued, ca_file=str(ca), hosts=("node.example", "192.0.2.1"))

    found = check_files(files, now_s=time.time())

    assert found.findings == ()
    assert (found.kind, found.subject) == ("certificate", "CN=node")
    assert found.expires_s == issued.certificate.not_valid_after_utc.timestamp()
    assert found.fingerprint == issued.certificate.fingerprint(hashes.SHA256()).hex()


@pytest.mark.parametrize(
    ("begin", "end", "code", "severity"),
    [
        (-2 * DAY, -DAY, "expired", Severity.DEGRADED),
        (-2 * DAY, 12 * HOUR, "expires_in_1d", Severity.DEGRADED),
        (-2 * DAY, 6 * DAY, "expires_in_7d", Severity.WARNING),
        (-2 * DAY, 29 * DAY, "expires_in_30d", Severity.WARNING),
        (2 * DAY, 90 * DAY, "not_yet_valid", Severity.DEGRADED),
    ],
)
def test_times(place: Path, root: Issued, begin, end, code: str, severity: Severity) -> None:
    """Warnings 30 and 7 days ahead; degraded on the last day, afterwards, and before its time."""
    files = server(place, issue("node", root, begin=begin, end=end))

    (finding,) = check_files(files, now_s=time.time()).findings

    assert (finding.code, finding.severity) == (code, severity)


@pytest.mark.parametrize(
    ("left_days", "codes"),
    [
        (30.001, []),
        (30, ["expires_in_30d"]),
        (7.001, ["expires_in_30d"]),
        (7, ["expires_in_7d"]),
        (1.001, ["expires_in_7d"]),
        (1, ["expires_in_1d"]),
        (0.00001, ["expires_in_1d"]),
        (0, ["expired"]),
        (-1, ["expired"]),
    ],
)
def test_the_stages_have_edges(left_days: float, codes: list[str]) -> None:
    """Each stage begins exactly so many days ahead, and only the nearest is told."""
    assert [it.code for it in expiry_findings("x", left_days * DAY_S, 0.0)] == codes


def test_what_never_ends_is_never_told() -> None:
    """No end, no finding."""
    assert list(expiry_findings("x", None, 0.0)) == []


def test_another_key(place: Path, root: Issued) -> None:
    """A key that belongs to another certificate is an error."""
    files = server(place, issue("node", root))
    Path(files.key_file).write_bytes(pem_of(new_key()))

    (finding,) = check_files(files, now_s=time.time()).findings

    assert (finding.code, finding.severity) == ("key_mismatch", Severity.ERROR)


def test_another_authority(place: Path, root: Issued) -> None:
    """The chain has to lead to an authority of the file; the same name is not enough."""
    ca, _ = authority("test authority").write(place, "ca")

    assert codes(server(place, issue("node", root), ca_file=str(ca))) == {"chain"}


def test_an_authority_between(place: Path, root: Issued) -> None:
    """A chain over an authority between is followed, where the file has it."""
    ca, _ = root.write(place, "ca")
    between = issue("between", root, is_authority=True)
    issued = issue("node", between)
    files = server(place, issued, ca_file=str(ca))
    assert codes(files) == {"chain"}

    pems = [it.certificate.public_bytes(Encoding.PEM) for it in (issued, between)]
    Path(files.cert_file).write_bytes(b"".join(pems))
    assert codes(files) == set()
    Path(files.cert_file).write_bytes(b"".join(reversed(pems)))
    assert "key_mismatch" in codes(files)


def test_a_certificate_that_may_not_issue(place: Path, root: Issued) -> None:
    """A leaf that signed another one is no issuer, whoever signed it."""
    ca, _ = root.write(place, "ca")
    between = issue("between", root)
    issued = issue("node", between)
    files = server(place, issued, ca_file=str(ca))
    pems = [it.certificate.public_bytes(Encoding.PEM) for it in (issued, between)]
    Path(files.cert_file).write_bytes(b"".join(pems))

    assert codes(files) == {"chain"}


def test_a_chain_ends_with_its_first_end(place: Path, root: Issued) -> None:
    """An authority between that runs out takes the certificate with it."""
    between = issue("between", root, is_authority=True, end=3 * DAY)
    issued = issue("node", between)
    files = server(place, issued)
    pems = [it.certificate.public_bytes(Encoding.PEM) for it in (issued, between)]
    Path(files.cert_file).write_bytes(b"".join(pems))

    assert codes(files) == {"expires_in_7d"}


def test_weak_keys_and_signatures(place: Path, root: Issued) -> None:
    """RSA below 2048 bits is refused, and 2048 is not."""
    assert codes(server(place, issue("node", root, key=new_key(1024)))) == {"weak_key"}
    assert codes(server(place, issue("node", root, key=new_key(2048)))) == set()


def test_a_name_that_clients_use(place: Path, root: Issued) -> None:
    """A server's certificate that names another host is remarked on; a client's is not."""
    issued = issue("node.example", root, hosts=("other.example",))
    files = server(place, issued, hosts=("node.example",))

    (finding,) = check_files(files, now_s=time.time()).findings

    assert (finding.code, finding.severity) == ("host", Severity.WARNING)


@pytest.mark.parametrize(
    ("pattern", "host", "is_named"),
    [
        ("a.example", "A.EXAMPLE", True),
        ("a.example", "b.a.example", False),
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "a.b.example.org", False),
        ("*.example.org", "example.org", False),
        ("*.org", "example.org", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8:0::1", True),
    ],
)
def test_names(root: Issued, pattern: str, host: str, is_named: bool) -> None:
    """Names by label, wildcards for one label, addresses by value."""
    assert names_host(issue("x", root, hosts=(pattern,)).certificate, host) is is_named


def test_the_common_name_is_no_name(root: Issued) -> None:
    """Clients have not looked at it for years."""
    assert not names_host(issue("node.example", root).certificate, "node.example")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_key_that_others_may_use(place: Path, root: Issued, mode: int) -> None:
    """Readable or writable by group or others: refused, with the mode and the mend."""
    files = server(place, issue("node", root))
    Path(files.key_file).chmod(mode)

    (finding,) = check_files(files, now_s=time.time()).findings

    assert (finding.code, finding.severity) == ("exposed", Severity.ERROR)
    assert f"mode {mode:04o}" in finding.message
    assert "chmod 0600" in finding.message


def test_a_certificate_may_be_read(place: Path, root: Issued) -> None:
    """It is public; only writing it is not for others."""
    files = server(place, issue("node", root))
    Path(files.cert_file).chmod(0o644)
    assert codes(files) == set()
    Path(files.cert_file).chmod(0o664)
    assert codes(files) == {"exposed"}


def test_a_directory_that_others_may_write(place: Path, root: Issued) -> None:
    """Whoever may write a directory above may put another key in the place of ours."""
    inner = place / "open" / "tls"
    inner.mkdir(parents=True)
    (place / "open").chmod(0o777)
    files = server(inner, issue("node", root))
    assert codes(files) == {"writable_directory"}
    (place / "open").chmod(0o1777)
    assert codes(files) == set()


def test_links_are_followed_and_looked_at(place: Path, root: Issued) -> None:
    """As ACME clients have it; the place that a link leads to counts as well."""
    real = place / "real"
    real.mkdir(mode=0o700)
    certificate, key = issue("node", root).write(real, "node")
    (place / "cert.pem").symlink_to(certificate)
    (place / "key.pem").symlink_to(key)
    files = TlsFiles(
        name="api",
        use=TlsUse.SERVER,
        cert_file=str(place / "cert.pem"),
        key_file=str(place / "key.pem"),
    )
    assert codes(files) == set()
    real.chmod(0o777)
    assert codes(files) == {"writable_directory"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_somebody_else(place: Path, root: Issued) -> None:
    """Their owner may change them."""
    files = server(place, issue("node", root))
    os.chown(files.key_file, 65534, 65534)

    assert codes(files) == {"owner"}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "unreadable"),
        (b"", "malformed"),
        (b"no pem", "malformed"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "malformed"),
    ],
)
def test_files_that_are_none(place: Path, root: Issued, content: bytes | None, code: str) -> None:
    """Missing, empty, or something else than PEM."""
    files = server(place, issue("node", root))
    key = Path(files.key_file)
    if content is None:
        key.unlink()
    else:
        key.write_bytes(content)

    assert codes(files) == {code}


def test_a_fifo_hangs_nobody(place: Path, root: Issued) -> None:
    """It is no regular file."""
    files = server(place, issue("node", root))
    Path(files.cert_file).unlink()
    os.mkfifo(files.cert_file, 0o600)

    assert codes(files) == {"malformed"}


def test_a_locked_key(place: Path, root: Issued) -> None:
    """Nobody can type a passphrase for a process."""
    issued = issue("node", root)
    files = server(place, issued)
    Path(files.key_file).write_bytes(
        issued.key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"phrase")
        )
    )

    assert codes(files) == {"encrypted_key"}


def test_authorities(place: Path, root: Issued) -> None:
    """Each may issue; one that has run out is in the way, and the last end counts."""
    path = place / "ca.pem"
    files = TlsFiles(name="api.clients", use=TlsUse.AUTHORITY, cert_file=str(path))

    def write(*found: Issued) -> None:
        path.write_bytes(b"".join(it.certificate.public_bytes(Encoding.PEM) for it in found))

    write(root)
    assert codes(files) == set()
    write(root, issue("old", is_authority=True, begin=-3 * DAY, end=-DAY))
    assert codes(files) == {"expired_authority"}
    write(root, issue("leaf", root))
    assert codes(files) == {"no_authority"}
    write(issue("old", is_authority=True, begin=-3 * DAY, end=-DAY))
    assert codes(files) == {"expired"}


def test_a_replaced_file_has_another_stamp(place: Path, root: Issued) -> None:
    """Changed, replaced and gone are seen."""
    files = server(place, issue("node", root))
    before = stamps(files)
    Path(files.key_file).chmod(0o400)
    changed = stamps(files)
    Path(files.key_file).unlink()

    assert len({before, changed, stamps(files)}) == 3
