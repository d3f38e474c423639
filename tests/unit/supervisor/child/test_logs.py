"""Log files rotate without losing a line, and never stop a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.child.logs import RotatedFile


def test_a_full_file_makes_room(tmp_path: Path) -> None:
    """The newest lines are in the current file, older ones in order behind it."""
    log = RotatedFile(tmp_path / "x", bytes_max=5, files=2)

    for number in range(8):
        log.write(f"line{number}".encode())

    assert (tmp_path / "x").read_bytes() == b"line7"
    assert (tmp_path / "x.1").read_bytes() == b"line6"
    assert (tmp_path / "x.2").read_bytes() == b"line5"
    assert not (tmp_path / "x.3").exists()


def test_a_line_that_just_fits_does_not_rotate(tmp_path: Path) -> None:
    """The limit itself is allowed."""
    log = RotatedFile(tmp_path / "x", bytes_max=10, files=2)

    log.write(b"12345")
    log.write(b"67890")

    assert (tmp_path / "x").read_bytes() == b"1234567890"


def test_a_line_longer_than_the_limit_is_still_written(tmp_path: Path) -> None:
    """It gets a file of its own."""
    log = RotatedFile(tmp_path / "x", bytes_max=10, files=1)

    log.write(b"a" * 50)
    log.write(b"b")

    assert (tmp_path / "x.1").read_bytes() == b"a" * 50


def test_a_restarted_process_goes_on_in_the_same_file(tmp_path: Path) -> None:
    """What is there counts against the limit."""
    RotatedFile(tmp_path / "x", bytes_max=10, files=1).write(b"12345678")

    RotatedFile(tmp_path / "x", bytes_max=10, files=1).write(b"abc")

    assert (tmp_path / "x").read_bytes() == b"abc"
    assert (tmp_path / "x.1").read_bytes() == b"12345678"


def test_a_link_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """Nobody can make a node write somewhere else."""
    (tmp_path / "x").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic"):
        RotatedFile(tmp_path / "x", bytes_max=10, files=1)
