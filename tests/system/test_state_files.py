"""Files of the state directory: replaced whole, for their owner alone, whatever died before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.files import remove_file, replace_file


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_file_is_replaced_and_has_its_mode(tmp_path: Path, mode: int) -> None:
    """Also under a mask that would say otherwise, and where the one before had another."""
    file = tmp_path / "state.json"
    file.write_text("before")
    file.chmod(0o644)
    before = os.umask(0o077)
    try:
        replace_file(file, "after", mode=mode)
    finally:
        os.umask(before)

    assert file.read_text() == "after"
    assert file.stat().st_mode & 0o777 == mode
    assert [item.name for item in tmp_path.iterdir()] == ["state.json"]


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    """What somebody put where the draft goes, or a killed process left, is taken away."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "state.new").symlink_to(victim)

    replace_file(tmp_path / "state", b"\x00new")

    assert victim.read_text() == "untouched"
    assert (tmp_path / "state").read_bytes() == b"\x00new"


def test_what_can_not_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    """A directory in the way of the draft: an error, and the old content."""
    file = tmp_path / "state"
    file.write_text("before")
    (tmp_path / "state.new").mkdir()

    with pytest.raises(OSError, match=r"state\.new"):
        replace_file(file, "after")

    assert file.read_text() == "before"


def test_a_file_is_removed_once(tmp_path: Path) -> None:
    """And one that is not there is no error."""
    file = tmp_path / "state"
    file.write_text("x")

    remove_file(file)
    remove_file(file)

    assert not file.exists()
