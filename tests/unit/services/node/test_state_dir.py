"""The state directory: made, completed, cleaned, refused."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from protocol import names
from services.node.errors import (
    NodeRunningError,
    ServiceUserError,
    StateDirectoryError,
    StateFormatError,
)
from services.node.state_dir import StateDir, foreign_names, parse_format, prepare

GROUP = "no-such-group-of-novacron"
ME = pwd.getpwuid(os.geteuid()).pw_name


@contextmanager
def _held(state: Path, *, log_dir: Path | None = None) -> Iterator[StateDir]:
    prepared = prepare(
        state,
        log_dir=log_dir or state / "logs",
        group=GROUP,
        service_user=ME,
        embedded=False,
        lock_timeout_s=0.0,
    )
    try:
        yield prepared
    finally:
        os.close(prepared.lock_fd)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory with a short path, so that sockets fit below it."""
    path = Path(tempfile.mkdtemp(prefix="nc-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def state(base: Path) -> Path:
    """A path for a state directory."""
    return base / "state"


@pytest.mark.parametrize(
    ("text", "version"), [("1\n", 1), (" 12 ", 12), ("", None), ("\n", None), ("0", 0)]
)
def test_parse_format(text: str, version: int | None) -> None:
    """A format is a whole number; a file that is empty says nothing."""
    assert parse_format(text) == version


@pytest.mark.parametrize("text", ["x", "-1", "1.0", "1 2", "\u0661", "1" * 10])
def test_parse_format_refuses(text: str) -> None:
    """Everything else is no format."""
    with pytest.raises(ValueError, match="whole number"):
        parse_format(text)


@pytest.mark.parametrize(
    ("entries", "foreign"),
    [
        (set(), []),
        ({"lost+found"}, []),
        ({"postgres", "logs"}, []),
        ({"node.lock", "notes.txt"}, []),
        ({"format", "notes.txt"}, []),
        ({"run", "home", "etc"}, ["etc", "home"]),
    ],
)
def test_foreign_names(entries: set[str], foreign: list[str]) -> None:
    """A directory is the node's by its marks, or where it holds nothing that is not the node's."""
    assert foreign_names(frozenset(entries)) == foreign


def test_a_new_directory_is_made_complete(state: Path) -> None:
    """Everything is there with its mode, missing parents included."""
    with _held(state / "deep") as prepared:
        path = prepared.path
        assert prepared.is_new
        assert (path / "format").read_text() == "1\n"
        assert (path / "node.lock").read_text() == f"{os.getpid()}\n"
        modes = {"": 0o751, "logs": 0o2750, "dwcp": 0o750, "dwcp/incoming": 0o2750}
        modes["security"] = 0o700
        assert {name: _mode(path / name) for name in modes} == modes
        assert (_mode(path / "node.lock"), _mode(path / "format")) == (0o600, 0o640)
        assert (_mode(prepared.run_dir), prepared.log_problem) == (0o2751, "")
        assert prepared.run_dir == names.run_dir(path)
        assert os.get_inheritable(prepared.lock_fd) is False


def test_it_is_the_same_the_second_time(state: Path) -> None:
    """A second start changes nothing and is told that nothing is new."""
    with _held(state):
        before = {path: path.stat().st_ctime_ns for path in state.iterdir() if path.is_dir()}
        (state / "security" / "master.key").write_bytes(b"key")

    with _held(state) as prepared:
        after = {path: path.stat().st_ctime_ns for path in before}

    assert not prepared.is_new
    before.pop(state / "security")
    after.pop(state / "security")
    assert after == before
    assert (state / "security" / "master.key").read_bytes() == b"key"


@pytest.mark.parametrize("left", ["", "node.lock", "format", "dwcp", "security", "run"])
def test_a_half_written_directory_is_completed(state: Path, left: str) -> None:
    """Whatever a start that broke off left behind, the next one completes it."""
    state.mkdir()
    if left in ("node.lock", "format"):
        (state / left).touch()
    elif left:
        (state / left).mkdir()

    with _held(state):
        found = {path.name for path in state.iterdir()}

    assert found >= {"node.lock", "format", "dwcp", "security", "run", "logs"}
    assert (state / "format").read_text() == "1\n"


def test_stale_files_are_removed_and_others_stay(state: Path) -> None:
    """Sockets and keys of an earlier node go, also those of a server that was killed."""
    with _held(state) as prepared:
        run = prepared.run_dir
    stale = (
        "novacron.sock",
        "data.database.key",
        "api.key.new",
        "data.notify",
        "api.lock",
        "epoch",
    )
    (run / "pg").mkdir()
    paths = [*(run / name for name in stale), run / "pg/.s.PGSQL.5432.lock"]
    for path in (*paths, run / "notes"):
        path.touch()

    with _held(state):
        left = sorted(str(path.relative_to(run)) for path in run.rglob("*"))

    assert left == ["notes", "pg", "state"]


def test_a_long_path_gets_a_run_directory_elsewhere(base: Path) -> None:
    """The link leads to it; a link that came with a copied state directory is not followed."""
    state = base / ("long" * 20) / "state"
    with _held(state) as prepared:
        run = prepared.run_dir
        assert (state / "run").readlink() == run
        assert run != state / "run"
        assert names.run_dir(state) == run
    other = base / "other-run"
    other.mkdir()
    (other / "novacron.sock").touch()
    (state / "run").unlink()
    (state / "run").symlink_to(other)

    with _held(state) as prepared:
        found = prepared.run_dir

    assert found == run
    assert (other / "novacron.sock").exists()
    shutil.rmtree(run)


@pytest.mark.parametrize("in_the_way", ["file", "directory"])
def test_a_long_path_replaces_an_empty_directory_only(base: Path, in_the_way: str) -> None:
    """Sockets in a run directory that was moved to a long path go, what else is there stays."""
    state = base / ("long" * 20) / "state"
    (state / "run" / "pg").mkdir(parents=True)
    (state / "run" / "novacron.sock").touch()
    with _held(state) as prepared:
        assert (state / "run").readlink() == prepared.run_dir
    shutil.rmtree(prepared.run_dir)
    (state / "run").unlink()
    if in_the_way == "directory":
        (state / "run").mkdir()
        (state / "run" / "notes").touch()
    else:
        (state / "run").touch()

    with pytest.raises(StateDirectoryError, match=f"{state}/run"), _held(state):
        pass

    assert not prepared.run_dir.exists()


def test_a_link_of_another_node_is_replaced(state: Path, base: Path) -> None:
    """A copied state directory brings the link of the one that it was copied from."""
    state.mkdir()
    (state / "format").write_text("1\n")
    (state / "run").symlink_to(base / "gone")

    with _held(state) as prepared:
        assert prepared.run_dir == names.choose_run_dir(state)
        assert names.run_dir(state) == prepared.run_dir


def test_the_lock_is_held_once(state: Path) -> None:
    """A second node is told who holds the directory and what it may do; later it may start."""
    with _held(state), pytest.raises(NodeRunningError, match="--state-dir") as caught, _held(state):
        pass

    assert caught.value.fields["pid"] == os.getpid()
    assert caught.value.retryable
    with _held(state):
        pass


def test_a_failure_gives_the_lock_back(state: Path) -> None:
    """A start that was refused leaves nothing held."""
    with _held(state):
        pass
    (state / "format").write_text("2\n")
    for _ in range(2):
        with pytest.raises(StateFormatError), _held(state):
            pass


@pytest.mark.parametrize(
    ("text", "said"),
    [("2\n", "newer NovaCron"), ("0\n", "no known format"), ("x", "no known format")],
)
def test_another_format_is_refused_untouched(state: Path, text: str, said: str) -> None:
    """What a newer program wrote is left as it is."""
    state.mkdir(mode=0o700)
    (state / "format").write_text(text)

    with pytest.raises(StateFormatError, match=said), _held(state):
        pass

    assert {path.name for path in state.iterdir()} == {"format", "node.lock"}
    assert (state / "format").read_text() == text
    assert _mode(state) == 0o700


def _dangling(state: Path) -> None:
    state.symlink_to(state.with_name("gone"))


def _file(state: Path) -> None:
    state.write_text("not yours")


def _foreign(state: Path) -> None:
    state.mkdir()
    (state / "thesis.tex").touch()


def _open_to_all(state: Path) -> None:
    state.mkdir()
    state.chmod(0o1777)


def _run_is_a_file(state: Path) -> None:
    state.mkdir()
    (state / "run").touch()


def _lock_is_a_link(state: Path) -> None:
    state.mkdir()
    (state / "node.lock").symlink_to(state.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (_dangling, "symbolic link to nowhere"),
        (_file, "is no directory"),
        (_foreign, "holds other things (thesis.tex)"),
        (_open_to_all, "writable for everybody"),
        (_run_is_a_file, "run is"),
        (_lock_is_a_link, "can't use"),
    ],
)
def test_what_is_no_state_directory_is_refused(
    state: Path, arrange: Callable[[Path], None], said: str
) -> None:
    """Each refusal names the path, the reason and the way out."""
    arrange(state)

    with pytest.raises(StateDirectoryError) as caught, _held(state):
        pass

    assert str(state) in str(caught.value)
    assert said in str(caught.value)
    assert "--state-dir" in str(caught.value)


def test_a_link_to_a_directory_is_followed(state: Path, base: Path) -> None:
    """An operator may put the state on another disk by a symbolic link."""
    (base / "disk").mkdir()
    state.symlink_to(base / "disk")

    with _held(state):
        assert (base / "disk/format").exists()


def test_the_mode_of_the_security_directory_is_left(state: Path) -> None:
    """Its level judges it: a wrong mode may mean that a key leaked, so it is not made to vanish."""
    state.mkdir()
    (state / "security").mkdir()
    (state / "security").chmod(0o755)

    with _held(state):
        assert _mode(state / "security") == 0o755


def test_a_log_directory_that_is_a_file_is_told_and_no_error(state: Path, base: Path) -> None:
    """The node starts without log files and knows why."""
    (base / "logs").touch()

    with _held(state, log_dir=base / "logs") as prepared:
        assert prepared.log_dir is None
        assert prepared.log_problem == f"{base / 'logs'} is no directory"


def test_a_log_directory_elsewhere_keeps_its_mode(state: Path, base: Path) -> None:
    """One that is there is the operator's; one that is missing is made for the group."""
    (base / "theirs").mkdir(mode=0o755)

    with _held(state, log_dir=base / "theirs"):
        assert _mode(base / "theirs") == 0o755
    with _held(state, log_dir=base / "a/b") as prepared:
        assert prepared.log_dir == base / "a/b"
        assert _mode(base / "a/b") == 0o2750


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")
@pytest.mark.parametrize("user", ["no-such-user-of-novacron", "root"])
def test_embedded_servers_need_a_user(state: Path, user: str) -> None:
    """Root needs an account for PostgreSQL that exists and is not root; nothing was made."""
    with pytest.raises(ServiceUserError, match=user):
        prepare(state, log_dir=state / "logs", group=GROUP, service_user=user, embedded=True)

    assert not state.exists()
