"""Certificates and keys: whether they can be used, for how long, and by whom they can be read.

Pure: ``judge`` gets what ``services.security.credential_files`` has read. The rules:

    ends            30 and 7 days ahead a warning, 1 day ahead and afterwards degraded
    begins later    degraded
    key             of the certificate; RSA of 2048 bits, a curve of 256 bits, Ed25519 or more
    signature       no MD5, no SHA-1, but of a root, whose own signature nobody checks
    chain           each certificate is issued by the next one, and the last leads to an authority
    host            a server's certificate names what clients connect to
    authorities     may issue certificates

Source: RFC 5280, sections 4.2.1.9 and 6.1; RFC 9525, section 6 (names); NIST SP 800-57 part 1,
table 2 (112 bits of strength).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.security.credential_expiry import days, expiry_findings
from services.security.credentials_model import (
    Credential,
    Finding,
    Severity,
    TlsFiles,
    TlsUse,
    worst,
)

RSA_BITS_MIN = 2048
CURVE_BITS_MIN = 256
# No chain of a certificate authority is longer than three.
CHAIN_MAX = 10
_WEAK_HASHES = (hashes.MD5, hashes.SHA1)

Certificates = Sequence[x509.Certificate]


@dataclass(frozen=True, slots=True)
class Material:
    """What the files hold.

    Attributes:
        certificates: of the certificate file, in order; at least one.
        key: None for authorities.
        authorities: of the authorities' file; empty where there is none.
        findings: about the files themselves.
    """

    certificates: Certificates
    key: PrivateKeyTypes | None
    authorities: Certificates
    findings: tuple[Finding, ...] = ()


def judge(files: TlsFiles, material: Material, *, now_s: float) -> Credential:
    """Check certificates.

    Args:
        files: what they are for.
        material: what they are.
        now_s: Unix time.
    """
    leaf = material.certificates[0]
    if files.use is TlsUse.AUTHORITY:
        # The last to end: as long as one lasts, whoever it vouches for is let in.
        ends_s = max(_end_s(it) for it in material.certificates)
        findings = tuple(_authority_findings(files, material.certificates, now_s))
        kind = "authority"
    else:
        # A chain ends with the first of its certificates to end.
        ends_s = min(_end_s(it) for it in material.certificates)
        findings = tuple(_leaf_findings(files, material, now_s))
        kind = "certificate"
    findings += tuple(expiry_findings(files.name, ends_s, now_s))
    return Credential(
        name=files.name,
        kind=kind,
        subject=leaf.subject.rfc4514_string(),
        expires_s=ends_s,
        fingerprint=leaf.fingerprint(hashes.SHA256()).hex(),
        findings=worst(material.findings + findings),
    )


def names_host(certificate: x509.Certificate, host: str) -> bool:
    """Whether a certificate is for a host name or address; the common name does not count."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return any(_matches(name, host) for name in names.get_values_for_type(x509.DNSName))
    return address in names.get_values_for_type(x509.IPAddress)


def _leaf_findings(files: TlsFiles, material: Material, now_s: float) -> Iterator[Finding]:
    leaf = material.certificates[0]
    if _begin_s(leaf) > now_s:
        text = f"{files.cert_file} is not valid for another {days(_begin_s(leaf) - now_s)}"
        yield Finding(severity=Severity.DEGRADED, code="not_yet_valid", message=text)
    if material.key is not None and _public(material.key.public_key()) != _public(
        leaf.public_key()
    ):
        yield _error("key_mismatch", f"{files.key_file} is not the key of {files.cert_file}")
    yield from _strength(files.cert_file, leaf)
    yield from _chain(files, material, now_s)
    if files.use is TlsUse.SERVER:
        yield from _names(files, leaf)


def _authority_findings(
    files: TlsFiles, certificates: Certificates, now_s: float
) -> Iterator[Finding]:
    for certificate in certificates:
        subject = certificate.subject.rfc4514_string()
        if not _is_authority(certificate):
            text = f"{subject} in {files.cert_file} may not issue certificates: it is no authority"
            yield _error("no_authority", text)
        if _end_s(certificate) <= now_s and len(certificates) > 1:
            text = f"{subject} in {files.cert_file} has run out: take it away"
            yield Finding(severity=Severity.WARNING, code="expired_authority", message=text)
        yield from _strength(files.cert_file, certificate)


def _strength(file: str, certificate: x509.Certificate) -> Iterator[Finding]:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS_MIN:
        yield _error(
            "weak_key", f"{file} has an RSA key of {key.key_size} bits; {RSA_BITS_MIN} at least"
        )
    if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < CURVE_BITS_MIN:
        yield _error(
            "weak_key", f"{file} has a curve of {key.key_size} bits; {CURVE_BITS_MIN} at least"
        )
    algorithm = certificate.signature_hash_algorithm
    if isinstance(algorithm, _WEAK_HASHES) and certificate.issuer != certificate.subject:
        yield _error(
            "weak_signature", f"{file} is signed with {algorithm.name}: have it issued anew"
        )


def _chain(files: TlsFiles, material: Material, now_s: float) -> Iterator[Finding]:
    """From the leaf by its issuers; to an authority where the authorities are known."""
    current, rest = material.certificates[0], list(material.certificates[1:])
    for _ in range(CHAIN_MAX):
        found = _issuer(current, material.authorities)
        if found is not None or (current in material.authorities):
            if found is not None and _end_s(found) <= now_s:
                text = f"{found.subject.rfc4514_string()} in {files.ca_file} has run out"
                yield Finding(severity=Severity.DEGRADED, code="expired_authority", message=text)
            return
        found = _issuer(current, rest)
        if found is None:
            break
        rest.remove(found)
        current = found
    if files.ca_file:
        yield _error(
            "chain",
            f"{files.cert_file} does not lead to an authority of {files.ca_file}: "
            f"{current.issuer.rfc4514_string()} is missing, or has signed nothing of it",
        )
    elif rest:
        yield _error(
            "chain",
            f"{files.cert_file} holds certificates that have not issued each other: the "
            "certificate comes first, then its issuers",
        )


def _names(files: TlsFiles, leaf: x509.Certificate) -> Iterator[Finding]:
    for host in files.hosts:
        if not names_host(leaf, host):
            text = f"{files.cert_file} does not name {host}: clients that connect to it are refused"
            yield Finding(severity=Severity.WARNING, code="host", message=text)


def _issuer(certificate: x509.Certificate, among: Certificates) -> x509.Certificate | None:
    for candidate in among:
        if candidate.subject != certificate.issuer or not _is_authority(candidate):
            continue
        try:
            certificate.verify_directly_issued_by(candidate)
        except (InvalidSignature, ValueError, TypeError):
            continue
        return candidate
    return None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _matches(pattern: str, host: str) -> bool:
    pattern, host = pattern.lower().rstrip("."), host.lower().rstrip(".")
    if not pattern.startswith("*."):
        return pattern == host
    # One label, and never a public suffix's.
    return host.partition(".")[2] == pattern[2:] and pattern.count(".") > 1


def _public(key: object) -> bytes:
    data: bytes = key.public_bytes(  # type: ignore[attr-defined] # every kind of key has it
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return data


def _begin_s(certificate: x509.Certificate) -> float:
    return certificate.not_valid_before_utc.timestamp()


def _end_s(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()


def _error(code: str, message: str) -> Finding:
    return Finding(severity=Severity.ERROR, code=code, message=message)
