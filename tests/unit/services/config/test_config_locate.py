"""Finding the configuration and the state directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.config.errors import ConfigError
from services.config.locate import SEARCH_PATH, config_dir, state_dir, state_dir_override


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A configuration directory whose two tiers name different state directories."""
    (tmp_path / "config.default.yaml").write_text("system: {dataDir: /default}\n")
    (tmp_path / "config.lab.yaml").write_text("system:\n  dataDir: ${BASE:-/srv}/lab\n")
    (tmp_path / "config.bare.yaml").write_text("{}\n")
    (tmp_path / "config.wrong.yaml").write_text("\nsystem: {dataDir: relative}\n")
    return tmp_path


def test_flag_then_variable_then_search_path(tmp_path: Path) -> None:
    """The strongest that names a directory wins; of the usual ones the first with files."""
    environ = {"NOVACRON_CONFIG_DIR": "/variable"}
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "config.default.json").write_text("{}")
    search = (tmp_path / "first", tmp_path / "second")

    assert config_dir("/flag", environ, search) == Path("/flag")
    assert config_dir(None, environ, search) == Path("/variable")
    assert config_dir(None, {"NOVACRON_CONFIG_DIR": ""}, search) == tmp_path / "second"


def test_no_directory_at_all_lists_where_was_looked(tmp_path: Path) -> None:
    """The error names the variable and the usual places."""
    with pytest.raises(ConfigError, match="NOVACRON_CONFIG_DIR: found not set") as caught:
        config_dir(None, {}, (tmp_path / "a", tmp_path / "b"))

    assert f"{tmp_path / 'a'}, {tmp_path / 'b'}" in str(caught.value)


def test_the_shipped_files_are_found_beside_the_packages() -> None:
    """A source tree works without anything installed or set."""
    assert (SEARCH_PATH[1] / "config.default.yaml").is_file()


@pytest.mark.parametrize(
    ("environment", "environ", "expected"),
    [
        ("bare", {}, "/default"),
        ("lab", {}, "/srv/lab"),
        ("lab", {"BASE": "/base/../other"}, "/other/lab"),
        (None, {"NOVACRON_ENVIRONMENT": "lab"}, "/srv/lab"),
        ("lab", {"NOVACRON_SYSTEM_DATADIR": "/variable/./x/"}, "/variable/x"),
    ],
)
def test_the_state_directory_follows_the_tiers(
    files: Path, environment: str | None, environ: dict[str, str], expected: str
) -> None:
    """The environment's file goes before the default file, and the variable before both."""
    assert state_dir(None, environ, files, environment) == Path(expected)


def test_the_flag_needs_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative flag counts from the working directory, and nothing is read."""
    monkeypatch.chdir(tmp_path)

    found = state_dir("sub/../node", {}, tmp_path / "gone", None)

    assert found == tmp_path / "node"
    assert state_dir_override("sub/../node") == {"system.dataDir": str(tmp_path / "node")}
    assert state_dir_override(None) == {}


def test_without_the_key_the_built_in_directory_is_used(tmp_path: Path) -> None:
    """An old default file still leads somewhere."""
    (tmp_path / "config.default.yaml").write_text("{}")
    (tmp_path / "config.lab.yaml").write_text("{}")

    assert state_dir(None, {}, tmp_path, "lab") == Path("/var/lib/novacron")


@pytest.mark.parametrize(
    ("environment", "environ", "message"),
    [
        ("wrong", {}, r"config.wrong.yaml:2: system.dataDir: found 'relative', expected the abs"),
        ("bare", {"NOVACRON_SYSTEM_DATADIR": ""}, r"NOVACRON_SYSTEM_DATADIR: .* found '', exp"),
        ("gone", {}, "found 'gone', expected one of bare, lab, wrong"),
    ],
)
def test_a_directory_that_is_none_is_refused(
    files: Path, environment: str, environ: dict[str, str], message: str
) -> None:
    """The errors are those of the loader: where, what was found, what is expected."""
    with pytest.raises(ConfigError, match=message):
        state_dir(None, environ, files, environment)


@pytest.mark.parametrize("text", ["5", "${GONE}", "${"])
def test_a_value_that_is_no_path_is_refused(tmp_path: Path, text: str) -> None:
    """A number and a reference to nothing are refused with the key."""
    (tmp_path / "config.default.yaml").write_text(f"system:\n  dataDir: {text}\n")
    (tmp_path / "config.lab.yaml").write_text("{}")

    with pytest.raises(ConfigError, match=r"config.default.yaml:2: system.dataDir: found"):
        state_dir(None, {}, tmp_path, "lab")
