"""Secrets in files, variables and systemd's credentials: what is taken and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.security.secrets.environment import EnvironmentProvider
from services.security.secrets.errors import (
    ProviderUnconfiguredError,
    RotationRefusedError,
    SecretDeniedError,
    SecretError,
    SecretMissingError,
    SecretUnusableError,
)
from services.security.secrets.files import FileProvider
from services.security.secrets.provider import VALUE_BYTES_MAX
from services.security.secrets.systemd import SystemdProvider


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory of secrets with one in it."""
    tmp_path.chmod(0o700)
    put(tmp_path / "db", "hush\n")
    return tmp_path


def put(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Write a file for its owner alone."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


@pytest.mark.parametrize(
    ("content", "value"),
    [("hush", "hush"), ("hush\n", "hush"), ("a\nb\n", "a\nb"), ("a\n\n", "a\n"), (" a ", " a ")],
)
def test_one_newline_at_the_end_does_not_count(directory: Path, content: str, value: str) -> None:
    """What editors add is taken away, and nothing else."""
    put(directory / "db", content)

    assert FileProvider(directory).get("db").value == value


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("gone", SecretMissingError, "no file"),
        ("db/x", SecretMissingError, "no file"),
        ("readable", SecretDeniedError, "mode 0640"),
        ("link", SecretDeniedError, "symbolic link"),
        ("dangling", SecretDeniedError, "symbolic link"),
        ("open/db", SecretDeniedError, "mode 0777"),
        ("directory", SecretUnusableError, "no regular file"),
        ("fifo", SecretUnusableError, "no regular file"),
        ("empty", SecretUnusableError, "empty"),
        ("newline", SecretUnusableError, "empty"),
        ("large", SecretUnusableError, "at most"),
        ("latin", SecretUnusableError, "no UTF-8"),
        ("nul", SecretUnusableError, "NUL"),
    ],
)
def test_files_that_are_refused(
    directory: Path, name: str, error: type[SecretError], sentence: str
) -> None:
    """Missing, readable by others, replaceable by others, or no value: each has its sentence."""
    put(directory / "readable", "hush", 0o640)
    (directory / "link").symlink_to(directory / "db")
    (directory / "dangling").symlink_to("/nonexistent")
    (directory / "open").mkdir()
    put(directory / "open/db", "hush")
    (directory / "open").chmod(0o777)
    (directory / "directory").mkdir(mode=0o700)
    os.mkfifo(directory / "fifo", 0o600)
    put(directory / "empty", "")
    put(directory / "newline", "\n")
    put(directory / "large", "x" * (VALUE_BYTES_MAX + 1))
    put(directory / "latin", b"\xe4")
    put(directory / "nul", "a\0b")

    with pytest.raises(error, match=sentence) as caught:
        FileProvider(directory).get(name)

    assert "hush" not in str(caught.value)


def test_the_largest_file(directory: Path) -> None:
    """The limit itself is accepted."""
    put(directory / "large", "x" * VALUE_BYTES_MAX)

    assert len(FileProvider(directory).get("large").value) == VALUE_BYTES_MAX


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_refused(directory: Path) -> None:
    """Whoever owns a file may change it."""
    os.chown(directory / "db", 65534, 65534)

    with pytest.raises(SecretDeniedError, match="belongs to user 65534"):
        FileProvider(directory).get("db")


def test_a_directory_that_others_may_write_is_refused(directory: Path) -> None:
    """They could put another file in the place of ours."""
    directory.chmod(0o777)

    with pytest.raises(SecretDeniedError, match="mode 0777"):
        FileProvider(directory).get("db")
    assert "mode 0777" in FileProvider(directory).health()


def test_a_changed_file_is_another_version(directory: Path) -> None:
    """The version follows the content."""
    provider = FileProvider(directory)
    before = provider.get("db")
    put(directory / "db", "other")

    assert provider.get("db").version != before.version
    assert provider.get("db").created_s == pytest.approx(
        (directory / "db").stat().st_mtime, abs=0.001
    )


def test_rotation_replaces_the_file_as_a_whole(directory: Path) -> None:
    """The new file has the mode of a secret, and nothing is left beside it."""
    found = FileProvider(directory).rotate("db", "new\nvalue")

    assert found.value == "new\nvalue"
    assert (directory / "db").stat().st_mode & 0o777 == 0o600
    assert [it.name for it in directory.iterdir()] == ["db"]


def test_rotation_follows_no_link(directory: Path) -> None:
    """A link is refused, and what it points to stays as it is."""
    (directory / "link").symlink_to(directory / "db")

    with pytest.raises(SecretDeniedError):
        FileProvider(directory).rotate("link", "new")
    assert (directory / "db").read_text() == "hush\n"


def test_variables_are_fixed() -> None:
    """A variable is taken as it is, can't be rotated, and a missing one is named."""
    provider = EnvironmentProvider({"A": "hush\n", "EMPTY": ""})

    assert provider.get("A").value == "hush\n"
    assert provider.is_static
    with pytest.raises(SecretMissingError, match="variable B"):
        provider.get("B")
    with pytest.raises(SecretUnusableError, match="empty"):
        provider.get("EMPTY")
    with pytest.raises(RotationRefusedError, match="restart"):
        provider.rotate("A", "x")


def test_credentials_of_systemd(directory: Path) -> None:
    """The files of the service's own directory, readable by the service's group at most."""
    put(directory / "db", "hush\n", 0o440)
    provider = SystemdProvider(directory)

    assert provider.get("db").value == "hush"
    assert provider.is_static
    with pytest.raises(RotationRefusedError, match="restart the service"):
        provider.rotate("db", "x")
    with pytest.raises(ProviderUnconfiguredError, match="LoadCredential=db"):
        SystemdProvider(None).get("db")
