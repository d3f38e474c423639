"""The master key file: made once, checked always, never replaced."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.security.errors import MasterKeyError, SecurityFileError
from services.security.keyring import (
    MASTER_KEY_BYTES,
    MASTER_KEY_NAME,
    Keyring,
    derive_keyring,
    load_keyring,
)

STRANGER = 65534
FILES = [".has-keyset", "keyset", "keyset.copy", MASTER_KEY_NAME]


def load(directory: Path, *, used_marks: tuple[str, ...] = ()) -> Keyring:
    """Load the keys and let go of the directory, as a process does at its end."""
    keyring = load_keyring(directory, node_id="node", now_s=1000.0, used_marks=used_marks)
    keyring.close()
    return keyring


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The level's directory with a key in it."""
    path = tmp_path / "security"
    load(path)
    return path


def names(directory: Path) -> list[str]:
    """What lies in a directory."""
    return sorted(entry.name for entry in directory.iterdir())


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """Run as another user for a while; needs root."""
    if os.geteuid() != 0:
        pytest.skip("changing the user needs root")
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def replace_key(directory: Path, data: bytes, mode: int = 0o600) -> bytes:
    """Put other bytes into the key file and return them."""
    path = directory / MASTER_KEY_NAME
    path.write_bytes(data)
    path.chmod(mode)
    return data


def assert_refused(directory: Path, match: str, left: bytes | None = None) -> None:
    """The keyring is refused with a reason, and what lies there is left alone."""
    with pytest.raises(MasterKeyError, match=match):
        load(directory)
    if left is not None:
        assert (directory / MASTER_KEY_NAME).read_bytes() == left


def test_the_first_start_makes_a_key(tmp_path: Path) -> None:
    """A missing key is made: 32 bytes, mode 0600, in a directory of mode 0700."""
    directory = tmp_path / "security"

    keyring = load(directory)

    found = (directory / MASTER_KEY_NAME).stat()
    assert keyring.created
    assert (found.st_size, stat.S_IMODE(found.st_mode)) == (MASTER_KEY_BYTES, 0o600)
    assert found.st_nlink == 1
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert names(directory) == FILES


def test_the_mode_does_not_follow_a_wide_umask(tmp_path: Path) -> None:
    """An open umask makes no open key."""
    old = os.umask(0)
    try:
        load(tmp_path / "security")
    finally:
        os.umask(old)

    assert stat.S_IMODE((tmp_path / "security" / MASTER_KEY_NAME).stat().st_mode) == 0o600


def test_later_starts_read_the_same_keys(directory: Path) -> None:
    """The keys of a second start open and verify what the first one's made."""
    first, second = load(directory), load(directory)

    assert not second.created
    assert first.signer.key_id == second.signer.key_id
    sealed = first.cipher.seal(b"value", context=b"c", nonce=bytes(12))
    assert second.open(sealed, context=b"c") == b"value"


def test_keys_of_different_purposes_differ() -> None:
    """What is derived for one purpose says nothing about another, and ids are no keys."""
    master = bytes(range(32))
    keyring = derive_keyring(master)
    other = derive_keyring(bytes(32))

    seen = {keyring.cipher.key_id, keyring.signer.key_id, other.cipher.key_id, other.signer.key_id}
    assert len(seen) == 4
    assert master.hex() not in repr(keyring)


def test_derived_keys_never_change() -> None:
    """The derivation is fixed: another one could open and verify nothing that exists."""
    keyring = derive_keyring(bytes(range(32)))

    assert keyring.cipher.key_id == "1669ea439f4990ff"
    assert (
        keyring.signer.public_bytes.hex()
        == "ac4ad62eb93e35ddd677ffdc68d6ef1916015dc4845b435a812e12e78121e5e9"
    )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o602, 0o610])
def test_a_key_that_others_may_use_is_refused(directory: Path, mode: int) -> None:
    """Any right of group or world ends the start and names the mode."""
    left = replace_key(directory, bytes(32), mode)

    assert_refused(directory, f"mode {mode:04o}", left)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64, 100_000])
def test_a_key_of_another_size_is_refused(directory: Path, size: int) -> None:
    """A short, empty or long key file is left as it is."""
    left = replace_key(directory, b"k" * size)

    assert_refused(directory, f"has {size} bytes and not 32", left)


def test_a_symbolic_link_is_refused(directory: Path, tmp_path: Path) -> None:
    """A link is not followed, even to a good key."""
    key = directory / MASTER_KEY_NAME
    key.rename(tmp_path / "elsewhere")
    key.symlink_to(tmp_path / "elsewhere")

    assert_refused(directory, "regular file")


def test_a_dangling_link_is_refused(directory: Path, tmp_path: Path) -> None:
    """A link to nothing is not taken for a missing key."""
    key = directory / MASTER_KEY_NAME
    key.unlink()
    key.symlink_to(tmp_path / "nothing")

    assert_refused(directory, "regular file")
    assert not (tmp_path / "nothing").exists()


def test_a_directory_or_pipe_in_its_place_is_refused(directory: Path) -> None:
    """Neither makes the start hang or pass."""
    key = directory / MASTER_KEY_NAME
    key.unlink()
    key.mkdir()
    assert_refused(directory, "regular file")
    key.rmdir()
    os.mkfifo(key, 0o600)
    assert_refused(directory, "regular file")


def test_a_key_of_another_user_is_refused(directory: Path) -> None:
    """A key that somebody else owns may be known to somebody else."""
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    os.chown(directory / MASTER_KEY_NAME, STRANGER, -1)

    assert_refused(directory, f"belongs to user {STRANGER}")


def test_an_unreadable_key_is_refused(tmp_path: Path) -> None:
    """A key without the right to read it is no missing key."""
    tmp_path.chmod(0o755)
    directory = tmp_path / "security"
    directory.mkdir(mode=0o700)
    replace_key(directory, bytes(32), 0o000)
    if os.geteuid() == 0:
        os.chown(directory, STRANGER, -1)
        os.chown(directory / MASTER_KEY_NAME, STRANGER, -1)
        _open_way(tmp_path)
        with as_user(STRANGER):
            assert_refused(directory, "Permission denied")
    else:
        assert_refused(directory, "Permission denied")


def test_an_unreadable_directory_is_refused(tmp_path: Path) -> None:
    """Without the right to look into the directory no key is made anywhere."""
    directory = tmp_path / "security"
    load(directory)
    _open_way(tmp_path)

    with as_user(STRANGER), pytest.raises(SecurityFileError, match="Permission denied"):
        load(directory)


def test_a_state_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """Where the directory can't be made the message says so."""
    _open_way(tmp_path)

    with as_user(STRANGER), pytest.raises(SecurityFileError, match="can't make"):
        load(tmp_path / "security")


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o770])
def test_a_directory_that_others_may_enter_is_refused(directory: Path, mode: int) -> None:
    """Who may write the directory may replace the key."""
    directory.chmod(mode)

    with pytest.raises(SecurityFileError, match=f"mode {mode:04o}"):
        load(directory)


def test_a_linked_directory_is_refused(directory: Path, tmp_path: Path) -> None:
    """The directory itself may be no symbolic link."""
    directory.rename(tmp_path / "elsewhere")
    directory.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SecurityFileError, match="no symbolic link"):
        load(directory)


def test_a_crash_before_the_link_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    """A half-written temporary file is removed and a key made."""
    directory = tmp_path / "security"
    directory.mkdir(mode=0o700)
    (directory / ".master.key.0123").write_bytes(b"half")

    keyring = load(directory)

    assert keyring.created
    assert names(directory) == FILES


def test_a_crash_after_the_link_keeps_the_key(directory: Path) -> None:
    """A second name that the crash left goes, and the key stays."""
    os.link(directory / MASTER_KEY_NAME, directory / ".master.key.0123")
    left = (directory / MASTER_KEY_NAME).read_bytes()

    keyring = load(directory)

    assert not keyring.created
    assert (directory / MASTER_KEY_NAME).read_bytes() == left
    assert names(directory) == FILES


def test_a_lost_key_is_not_replaced(directory: Path) -> None:
    """Where signed records show that there was a key, its absence is a loss."""
    for name in FILES:
        (directory / name).unlink()
    (directory / "audit.jsonl").write_text("{}\n")

    with pytest.raises(MasterKeyError, match="restore it from a backup"):
        load(directory, used_marks=("audit.jsonl",))
    assert not (directory / MASTER_KEY_NAME).exists()


def test_an_empty_mark_is_no_loss(directory: Path) -> None:
    """An audit file without a record, from a crash at the first start, proves nothing."""
    for name in FILES:
        (directory / name).unlink()
    (directory / "audit.jsonl").touch()

    assert load(directory, used_marks=("audit.jsonl",)).created


def _open_way(path: Path) -> None:
    """Let other users walk to a temporary directory below pytest's own."""
    for parent in (path, *path.parents):
        if parent.name.startswith("pytest-of-") or parent.parent.name.startswith("pytest-of-"):
            parent.chmod(parent.stat().st_mode | 0o011)
    path.chmod(0o755)
