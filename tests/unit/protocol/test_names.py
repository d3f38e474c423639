"""Names become paths by rule, and paths names again."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol import names

RUN = Path("/run/n")


@pytest.mark.parametrize(
    "path", ["telemetry", "data/database", "core/dwcp/transport.0", "novacron"]
)
def test_a_key_file_tells_its_process(path: str) -> None:
    """The file name of a key and the path are the same thing in two spellings."""
    assert names.path_of_key(names.key_path(RUN, path)) == path


@pytest.mark.parametrize(
    ("text", "is_path"),
    [
        ("a", True),
        ("a/b-c", True),
        ("transport.0", True),
        ("", False),
        ("/a", False),
        ("a//b", False),
        ("A", False),
        ("a/../b", False),
        ("a b", False),
    ],
)
def test_only_plain_names_are_paths(text: str, *, is_path: bool) -> None:
    """What could leave the run directory is no name."""
    assert names.is_process_path(text) is is_path


def test_parents_and_children_fit_together() -> None:
    """The root's children carry no prefix; others carry their supervisor's path."""
    assert names.child_path("novacron", "data") == "data"
    assert names.child_path("data", "cache") == "data/cache"
    assert names.parent_path("data/cache") == "data"
    assert names.parent_path("data") == "novacron"


def test_sockets_are_in_the_systems_directory_for_them(tmp_path: Path) -> None:
    """It is in memory; each state directory has one of its own."""
    first = names.choose_run_dir(Path("/var/lib/novacron"), tmp_path)

    assert first.parent == tmp_path
    assert names.choose_run_dir(Path("/var/lib/other"), tmp_path) != first


def test_a_node_without_that_right_keeps_them_in_its_state_directory() -> None:
    """The usual case of an unprivileged node."""
    chosen = names.choose_run_dir(Path("/var/lib/novacron"), Path("/nonexistent"))

    assert chosen == Path("/var/lib/novacron/run")


def test_a_long_state_directory_gets_a_short_run_directory() -> None:
    """Every socket of the tree fits into the 107 bytes that the kernel allows."""
    run = names.choose_run_dir(Path("/var/lib") / ("x" * 90), Path("/nonexistent"))

    assert len(str(names.socket_path(run, "core/dwcp/transport.255"))) <= names.SUN_PATH_MAX
    assert run.parent == Path("/tmp")


def test_a_running_node_is_found_by_its_link(tmp_path: Path) -> None:
    """Whoever asks need not have the right that the node had when it chose."""
    (tmp_path / "run").symlink_to("/run/novacron-0123456789ab")

    assert names.run_dir(tmp_path) == Path("/run/novacron-0123456789ab")
