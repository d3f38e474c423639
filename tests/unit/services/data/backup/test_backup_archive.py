"""The files of a backup: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.data.backup import archive, swap
from services.data.backup.errors import BackupDamagedError, BackupError, BackupExistsError
from services.data.backup.manifest import FORMAT, Manifest, decode, encode

MANIFEST = Manifest(
    format=FORMAT, created_s=1.0, node_id="n", program="1", schema=3, schema_name="x",
    server="15.1", server_major=15, database="novacron", size_bytes=0, sha256="0" * 64, rows={},
)  # fmt: skip


def _write(file: Path, data: bytes) -> None:
    with archive.new_archive(file) as writer:
        writer.write(data)
        fields = {name: getattr(MANIFEST, name) for name in Manifest.__dataclass_fields__}
        fields |= {"size_bytes": writer.size_bytes, "sha256": writer.sha256}
        writer.commit(Manifest(**fields))


def test_committed_backup_verifies_and_leaves_no_draft(tmp_path: Path) -> None:
    """Two files, for their owner alone."""
    file = tmp_path / "b"
    _write(file, b"data" * 1000)

    assert archive.verify(file, lambda _done: None).size_bytes == 4000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "b.json"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_backup_that_is_not_committed_is_not_there(tmp_path: Path) -> None:
    """Whatever ended it."""
    with pytest.raises(KeyboardInterrupt), archive.new_archive(tmp_path / "b") as writer:  # noqa: PT012 - it ends in the middle
        writer.write(b"data")
        raise KeyboardInterrupt

    assert list(tmp_path.iterdir()) == []


def test_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """Not even between the look at the beginning and the end."""
    file = tmp_path / "b"
    with pytest.raises(BackupExistsError), archive.new_archive(file) as writer:  # noqa: PT012 - the end is what fails
        file.write_text("somebody's")
        writer.commit(MANIFEST)

    assert file.read_text() == "somebody's"


def test_two_writers_of_one_name_do_not_meet(tmp_path: Path) -> None:
    """The second is refused while the first is at work, and leaves its draft alone."""
    with archive.new_archive(tmp_path / "b"):
        with (
            pytest.raises(BackupExistsError, match="being written"),
            archive.new_archive(tmp_path / "b"),
        ):
            pass
        assert (tmp_path / "b.partial").exists()


def test_draft_of_a_killed_writer_is_no_hindrance(tmp_path: Path) -> None:
    """It is written over."""
    (tmp_path / "b.partial").write_bytes(b"x" * 100)

    _write(tmp_path / "b", b"short")

    assert (tmp_path / "b").read_bytes() == b"short"


def test_changed_bytes_are_found(tmp_path: Path) -> None:
    """The same length and another byte."""
    file = tmp_path / "b"
    _write(file, b"data")
    file.write_bytes(b"dato")

    with pytest.raises(BackupDamagedError, match="has changed"):
        archive.verify(file, lambda _done: None)


def test_missing_file_is_no_damage(tmp_path: Path) -> None:
    """A wrong name is told as such."""
    with pytest.raises(BackupError, match="no such file"):
        archive.read_manifest(tmp_path / "b")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"format": 1}', b"\xff\xfe", b"null"])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    """Any bytes end in the one error."""
    with pytest.raises(BackupDamagedError):
        decode(data, "m")


def test_manifest_survives_its_text() -> None:
    """Written and read it is the same."""
    assert decode(encode(MANIFEST), "m") == MANIFEST


def test_names_fit_into_postgresqls() -> None:
    """However long the database's name is, and in whole characters."""
    for name in ("novacron", "x" * 63, "ä" * 31):
        assert len(os.fsencode(swap.restoring_name(name))) <= swap.NAME_BYTES_MAX
        assert len(os.fsencode(swap.before_name(name, 0.0))) <= swap.NAME_BYTES_MAX
    assert swap.before_name("novacron", 0.0) == "novacron_before_19700101t000000z"
