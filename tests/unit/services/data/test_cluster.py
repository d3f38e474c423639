"""What is done with PostgreSQL's data directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.data.cluster import DataState, Step, data_state, decide, installed_versions


@pytest.mark.parametrize(
    ("state", "is_initialised", "step"),
    [
        (DataState.ABSENT, False, Step.CREATE),
        (DataState.PARTIAL, False, Step.SET_ASIDE_AND_CREATE),
        (DataState.COMPLETE, False, Step.ADOPT),
        (DataState.COMPLETE, True, Step.NOTHING),
        (DataState.PARTIAL, True, Step.REFUSE),
        (DataState.ABSENT, True, Step.REFUSE),
    ],
)
def test_decision_table(state: DataState, is_initialised: bool, step: Step) -> None:
    """A directory that was ever complete is never created anew."""
    assert decide(state, is_initialised=is_initialised) is step


def _complete(data: Path) -> None:
    for name in ("PG_VERSION", "global/pg_control", "base/1/PG_VERSION", "postgresql.conf"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("15\n")


def test_missing_and_empty_directories_are_absent(tmp_path: Path) -> None:
    """An empty directory holds no data that could be lost."""
    (tmp_path / "empty").mkdir()

    assert data_state(tmp_path / "missing") is DataState.ABSENT
    assert data_state(tmp_path / "empty") is DataState.ABSENT


def test_directory_with_all_of_initdb_is_complete(tmp_path: Path) -> None:
    """From initdb's first file to its last ones."""
    _complete(tmp_path)

    assert data_state(tmp_path) is DataState.COMPLETE


@pytest.mark.parametrize("name", ["PG_VERSION", "global/pg_control", "base/1/PG_VERSION"])
def test_directory_that_lacks_a_file_is_partial(tmp_path: Path, name: str) -> None:
    """One missing file is enough."""
    _complete(tmp_path)
    (tmp_path / name).unlink()

    assert data_state(tmp_path) is DataState.PARTIAL


def test_file_or_dangling_link_in_its_place_is_partial(tmp_path: Path) -> None:
    """Whatever bears the name is somebody's and is not overwritten."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")

    assert data_state(tmp_path / "file") is DataState.PARTIAL
    assert data_state(tmp_path / "link") is DataState.PARTIAL


def test_only_versions_with_a_server_count_as_installed(tmp_path: Path) -> None:
    """Debian leaves directories of removed versions and of client packages behind."""
    for name in ("13", "15", "client"):
        (tmp_path / name / "bin").mkdir(parents=True)
    (tmp_path / "15/bin/postgres").touch()
    (tmp_path / "client/bin/postgres").touch()

    assert installed_versions(tmp_path) == {"15": tmp_path / "15/bin"}
    assert installed_versions(tmp_path / "none") == {}
