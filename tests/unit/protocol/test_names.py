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


def test_a_short_state_directory_holds_its_run_directory() -> None:
    """The usual case."""
    assert names.run_dir(Path("/var/lib/novacron")) == Path("/var/lib/novacron/run")


def test_a_long_state_directory_gets_a_short_run_directory() -> None:
    """Every socket of the tree fits into the 107 bytes that the kernel allows."""
    state = Path("/var/lib") / ("x" * 90)

    run = names.run_dir(state)

    assert run != state / "run"
    assert len(str(names.socket_path(run, "core/dwcp/transport.255"))) <= names.SUN_PATH_MAX
    assert names.run_dir(Path("/var/lib") / ("y" * 90)) != run
