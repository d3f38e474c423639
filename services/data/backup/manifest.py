"""The manifest of a backup, and what it has to agree with: no I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire, to_wire
from services.data.backup.errors import BackupDamagedError, BackupUnfitError

FORMAT = "novacron.backup/1"
# A table takes some 40 bytes.
BYTES_MAX = 1 << 20

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup is.

    Attributes:
        format: FORMAT.
        created_s: time of the snapshot, seconds since the epoch.
        node_id: the node whose configuration named the database.
        program: version of NovaCron that made it.
        schema: number of the newest migration in it; ``schema_name`` is its name.
        server: version of PostgreSQL, such as 15.18; ``server_major`` is 15.
        database: its name.
        size_bytes, sha256: of the file.
        rows: number of rows by table, ``schema.name``.
    """

    format: str
    created_s: float
    node_id: str
    program: str
    schema: int
    schema_name: str
    server: str
    server_major: int
    database: str
    size_bytes: int
    sha256: str
    rows: dict[str, int]


def encode(manifest: Manifest) -> bytes:
    """The text of the file."""
    return (json.dumps(to_wire(manifest), indent=2, ensure_ascii=False) + "\n").encode()


def decode(data: bytes, name: str) -> Manifest:
    """Read the text of the file.

    Args:
        data: at most BYTES_MAX bytes.
        name: of the file, for messages.

    Raises:
        BackupDamagedError: it is no manifest.
        BackupUnfitError: it is one of a newer program.
    """
    try:
        plain = json.loads(data)
    except ValueError as exc:
        raise BackupDamagedError(f"{name} is no manifest of a backup: {exc}") from exc
    stated = plain.get("format") if isinstance(plain, dict) else None
    if stated != FORMAT:
        kind = str(stated)[:40]
        if isinstance(stated, str) and stated.startswith("novacron.backup/"):
            raise BackupUnfitError(f"{name} is of format {kind}; this program reads {FORMAT}")
        raise BackupDamagedError(f"{name} is no manifest of a backup: its format is {kind!r}")
    try:
        manifest = from_wire(Manifest, plain)
    except RemoteProtocolError as exc:
        raise BackupDamagedError(f"{name} is no manifest of a backup: {exc}") from exc
    if not _SHA256.fullmatch(manifest.sha256) or manifest.size_bytes < 0:
        raise BackupDamagedError(f"{name} states no SHA-256 and size")
    return manifest


def check_file(manifest: Manifest, *, size_bytes: int, sha256: str, name: str) -> None:
    """See that a file is the one that the manifest is about.

    Raises:
        BackupDamagedError: says how they differ.
    """
    if size_bytes != manifest.size_bytes:
        raise BackupDamagedError(
            f"{name} has {size_bytes} bytes and had {manifest.size_bytes} when it was made: "
            "it was cut or is of another backup; take another copy"
        )
    if sha256 != manifest.sha256:
        raise BackupDamagedError(
            f"{name} has changed since it was made (SHA-256 {sha256[:12]}… in place of "
            f"{manifest.sha256[:12]}…); take another copy"
        )


def check_fits(manifest: Manifest, *, schema: int, server_major: int, name: str) -> None:
    """See that this program and this server can take the backup.

    Args:
        manifest: of the backup.
        schema: the newest migration that the program knows.
        server_major: of the server to restore into.
        name: of the file.

    Raises:
        BackupUnfitError: one of them is older than the backup.
    """
    if manifest.schema > schema:
        raise BackupUnfitError(
            f"{name} has schema {manifest.schema} ({manifest.schema_name}) of NovaCron "
            f"{manifest.program}; this program knows it up to {schema}: use a newer NovaCron"
        )
    if manifest.server_major > server_major:
        raise BackupUnfitError(
            f"{name} comes from PostgreSQL {manifest.server}; the server is of version "
            f"{server_major}: restore it into version {manifest.server_major} or newer"
        )


def check_rows(expected: Mapping[str, int], found: Mapping[str, int]) -> None:
    """See that a restored database has what was backed up.

    Raises:
        BackupDamagedError: names the first table that differs.
    """
    for table in sorted(expected.keys() | found.keys()):
        if expected.get(table) != found.get(table):
            raise BackupDamagedError(
                f"table {table} has {found.get(table, 'no')} rows after the restore and had "
                f"{expected.get(table, 'no')} when it was backed up"
            )
