"""Backups of the master key, and master keys from outside."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from services.security.errors import DecryptionError, KeyRefusedError, MasterKeyError
from services.security.keyring import load_keyring
from services.security.keys import backup as backups
from services.security.keys.backup import Salt
from services.security.keys.disk import MemoryDisk
from services.security.keys.model import BackupReply
from services.security.keys.outside import outside_source
from services.security.keys.store import COPY, KEYSET
from services.security.secrets.model import SecretsPartSettings
from services.security.secrets.settings import SecretsSettings

PASSPHRASE = "correct horse battery staple"
# A real backup's n takes half a second.
SALT = Salt(b"s" * 16, n=1 << 10)


def backed_up(disk: MemoryDisk) -> bytes:
    """The content of a backup of a node's keys."""
    keyring = load_keyring(Path("/"), node_id="node", now_s=0.0, disk=disk)
    sealed = keyring.seal_master(backups.derive(PASSPHRASE, SALT), now_s=5.0)
    assert keyring.keyset.backed_up_s == 5.0
    reply = BackupReply(
        node_id="node",
        master_id=keyring.keyset.master_id,
        generation=keyring.keyset.generation,
        sealed=sealed,
    )
    return backups.encode(reply, SALT, now_s=5.0)


def test_a_backup_brings_the_keys_back() -> None:
    """On an empty disk master key and keyset are as they were at the backup."""
    disk, empty = MemoryDisk(), MemoryDisk()
    content = backed_up(disk)

    found = backups.decode(content)
    done = backups.restore(empty, *found.open(PASSPHRASE))

    assert (done.has_written_master, done.has_written_keyset) == (True, True)
    assert empty.files == disk.files
    assert disk.files["master.key"] not in content
    assert disk.files["master.key"].hex().encode() not in content


def test_a_restore_replaces_nothing() -> None:
    """The same keys are left as they are, and another master key is not touched."""
    disk, other = MemoryDisk(), MemoryDisk()
    found = backups.decode(backed_up(disk))
    newer = dict(disk.files, **{KEYSET: b"newer", COPY: b"newer"})
    disk.files = dict(newer)

    done = backups.restore(disk, *found.open(PASSPHRASE))

    assert (done.has_written_master, done.has_written_keyset) == (False, False)
    assert disk.files == newer
    other.files["master.key"] = b"x" * 32
    with pytest.raises(MasterKeyError, match="is another one"):
        backups.restore(other, *found.open(PASSPHRASE))
    assert other.files == {"master.key": b"x" * 32}


def test_a_wrong_passphrase_or_a_changed_backup_opens_nothing() -> None:
    """Both fail in the same words."""
    content = backed_up(MemoryDisk())
    fields = json.loads(content)
    fields["sealed"] = fields["sealed"][:-2] + ("00" if fields["sealed"][-2:] != "00" else "01")

    for found, passphrase in (
        (backups.decode(content), "incorrect horse"),
        (backups.decode(json.dumps(fields).encode()), PASSPHRASE),
    ):
        with pytest.raises(DecryptionError, match="the passphrase is wrong"):
            found.open(passphrase)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"kind": "something"}, "no backup"),
        ({"format": 2}, "no backup"),
        ({"scrypt": {"salt": "00", "n": 1 << 30, "r": 8, "p": 1}}, "more work or memory"),
        ({"scrypt": {"salt": "00", "n": 1024, "r": 1 << 20, "p": 1}}, "more work or memory"),
        ({"scrypt": None}, "not a whole one"),
        ({"sealed": "x"}, "not a whole one"),
    ],
)
def test_what_is_no_backup_is_refused(change: dict[str, object], match: str) -> None:
    """Foreign, newer, greedy and broken files."""
    fields = json.loads(backed_up(MemoryDisk())) | change

    with pytest.raises(KeyRefusedError, match=match):
        backups.decode(json.dumps(fields).encode())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null"])
def test_what_is_no_json_is_refused(content: bytes) -> None:
    """Anything else than our JSON."""
    with pytest.raises(KeyRefusedError, match="no backup"):
        backups.decode(content)


def place(directory: Path, name: str, content: bytes, mode: int = 0o400) -> None:
    """Put a credential or a secret's file there."""
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / name
    path.write_bytes(content)
    path.chmod(mode)


def test_a_credential_is_the_master_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes as systemd hands them over, also with the group's bits of its access list."""
    key = os.urandom(32)
    place(tmp_path / "credentials", "kek", key, 0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))

    source = outside_source("credential:kek", None)

    assert source is not None
    assert source.target().secret == key


@pytest.mark.parametrize(
    ("text", "mode", "match"),
    [
        ("credential:other", 0o400, "is not there"),
        ("credential:kek", 0o404, "others not read"),
        ("credential:kek", 0o460, "alone may write"),
        ("credential:short", 0o400, "holds 3 bytes"),
        ("credential:link", 0o400, "can't open"),
    ],
)
def test_bad_credentials_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, mode: int, match: str
) -> None:
    """Missing, open to others, of the wrong size, a link."""
    directory = tmp_path / "credentials"
    place(directory, "kek", bytes(32), mode)
    place(directory, "short", b"abc")
    (directory / "link").symlink_to(directory / "kek")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    source = outside_source(text, None)
    assert source is not None

    with pytest.raises(MasterKeyError, match=match):
        source.load()


def test_a_node_without_credentials_says_how_to_give_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Started by hand, with a credential configured."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    source = outside_source("credential:kek", None)
    assert source is not None

    with pytest.raises(MasterKeyError, match="LoadCredential=kek"):
        source.load()


def test_a_secret_is_the_master_key(tmp_path: Path) -> None:
    """From the provider of files: hexadecimal digits; .next is what a change goes to."""
    secrets, following = tmp_path / "secrets", os.urandom(32)
    place(secrets, "kek", os.urandom(32).hex().encode() + b"\n")
    settings = SecretsPartSettings(providers=SecretsSettings(directory=str(secrets)))
    source = outside_source("secret:file/kek", settings)
    assert source is not None
    assert len(source.load()) == 1
    place(secrets, "kek.next", following.hex().encode())

    assert source.target().secret == following


@pytest.mark.parametrize("text", ["secret:nowhere/kek", "secret:file/missing"])
def test_a_secret_that_is_not_there_is_critical(tmp_path: Path, text: str) -> None:
    """A wrong provider or name does not pass by waiting."""
    directory = tmp_path / "secrets"
    directory.mkdir(mode=0o700)
    settings = SecretsPartSettings(providers=SecretsSettings(directory=str(directory)))
    source = outside_source(text, settings)
    assert source is not None

    with pytest.raises(MasterKeyError):
        source.load()


def test_the_file_is_no_source_from_outside() -> None:
    """And a text that names nothing is refused."""
    assert outside_source("file", None) is None
    with pytest.raises(MasterKeyError, match="it is file, credential"):
        outside_source("nothing", None)
