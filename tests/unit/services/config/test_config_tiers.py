"""The files of a configuration directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.config.document import Leaf
from services.config.errors import ConfigError, Problem, ProblemKind
from services.config.origins import OriginKind
from services.config.tiers import FILE_SIZE_MAX, known_environments, lookup, read_tiers


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    """A directory with a default file and two environments."""
    (tmp_path / "config.default.yaml").write_text("environment: lab\n")
    (tmp_path / "config.lab.yaml").write_text("system: {dataDir: /lab}\n")
    (tmp_path / "config.field.json").write_text("{}")
    (tmp_path / "config.lab.yaml.orig").write_text("no file of ours")
    (tmp_path / "README").write_text("neither")
    return tmp_path


def refused(
    config_dir: Path, environment: str | None = None, environ: dict[str, str] | None = None
) -> Problem:
    """The problem that reading ends in."""
    with pytest.raises(ConfigError) as caught:
        read_tiers(config_dir, environment, environ or {})
    (problem,) = caught.value.problems
    assert str(problem) in str(caught.value)
    return problem


@pytest.mark.parametrize(
    ("flag", "environ", "name", "kind"),
    [
        (None, {}, "lab", OriginKind.FILE),
        (None, {"NOVACRON_ENVIRONMENT": "field"}, "field", OriginKind.VARIABLE),
        ("lab", {"NOVACRON_ENVIRONMENT": "field"}, "lab", OriginKind.FLAG),
    ],
)
def test_flag_then_variable_then_default_file_choose_the_environment(
    config_dir: Path, flag: str | None, environ: dict[str, str], name: str, kind: OriginKind
) -> None:
    """The environment comes from the strongest that says one, and that is remembered."""
    tiers = read_tiers(config_dir, flag, environ)

    assert tiers.environment == name
    assert tiers.environment_origin.kind is kind
    assert tiers.files[0].path.name == "config.default.yaml"
    assert tiers.files[1].path.name.startswith(f"config.{name}.")


def test_environments_are_known_by_their_files(config_dir: Path) -> None:
    """Only well-formed names with a known suffix count, and default is none."""
    assert known_environments(config_dir) == ("field", "lab")


def test_a_value_is_found_with_its_line(config_dir: Path) -> None:
    """A single value can be read without the model."""
    tree = read_tiers(config_dir, None, {}).files[1].tree

    assert lookup(tree, "system", "dataDir") == Leaf("/lab", 1)
    assert lookup(tree, "system", "logDir") is None
    assert lookup(tree, "nothing", "dataDir") is None


@pytest.mark.parametrize("name", ["labb", "default", "", "../lab", "LAB", "lab.yaml", "lab\0"])
def test_an_unknown_environment_lists_the_known_ones(config_dir: Path, name: str) -> None:
    """The error names flag, found name, known names, and the closest."""
    problem = refused(config_dir, name)

    assert problem.kind is ProblemKind.ENVIRONMENT
    assert problem.origin.name == "--environment"
    assert problem.found == repr(name)
    assert problem.expected == f"one of field, lab in {config_dir}"
    if name == "labb":
        assert problem.hint == "did you mean lab?"


def test_a_directory_with_no_environment_says_what_file_is_missing(tmp_path: Path) -> None:
    """Without any environment's file the error names the pattern."""
    (tmp_path / "config.default.yaml").write_text("{}")

    problem = refused(tmp_path)

    assert problem.found == "'production'"
    assert problem.expected.startswith("a file config.<environment>.yaml")


@pytest.mark.parametrize("text", ["environment: 5", "environment: [a]", "environment: {a: 1}"])
def test_an_environment_that_is_no_name_is_refused(config_dir: Path, text: str) -> None:
    """The key that chooses the file must be a text."""
    (config_dir / "config.default.yaml").write_text(text)

    problem = refused(config_dir)

    assert problem.key == "environment"
    assert problem.origin.line == 1
    assert problem.expected == "a name"


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """The directory and the reason are in the error."""
    problem = refused(tmp_path / "gone")

    assert problem.origin.name == str(tmp_path / "gone")
    assert problem.found == "no such file or directory"


def test_a_file_in_place_of_the_directory_is_named(tmp_path: Path) -> None:
    """A file is no directory."""
    (tmp_path / "file").write_text("")

    assert refused(tmp_path / "file").found == "not a directory"


def test_a_missing_default_file_lists_its_possible_names(tmp_path: Path) -> None:
    """All three suffixes are named."""
    problem = refused(tmp_path)

    assert problem.found == "no such file"
    assert problem.expected == (
        "one of config.default.yaml, config.default.yml, config.default.json"
    )


@pytest.mark.parametrize("tier", ["default", "lab"])
def test_two_files_for_one_tier_are_refused(config_dir: Path, tier: str) -> None:
    """YAML or JSON, not both: nobody could tell which one wins."""
    (config_dir / f"config.{tier}.json").write_text("{}")

    problem = refused(config_dir)

    assert problem.kind is ProblemKind.DUPLICATE
    assert problem.found == f"config.{tier}.json and config.{tier}.yaml"


def test_a_file_at_the_size_limit_is_read_and_a_larger_one_is_not(config_dir: Path) -> None:
    """The limit is in bytes, and exact."""
    file = config_dir / "config.default.yaml"
    text = "environment: lab\n#"
    file.write_text(text + "x" * (FILE_SIZE_MAX - len(text)))
    read_tiers(config_dir, None, {})
    file.write_text(text + "x" * (FILE_SIZE_MAX - len(text) + 1))

    problem = refused(config_dir)

    assert problem.kind is ProblemKind.UNREADABLE
    assert problem.found == f"more than {FILE_SIZE_MAX} bytes"


@pytest.mark.parametrize("raw", [b"a: 1\nb: \xff\n", "a: ä\nb: ö".encode("latin-1")[5:]])
def test_another_encoding_is_refused_with_byte_and_line(config_dir: Path, raw: bytes) -> None:
    """UTF-8 is the only encoding, and the error says where it ends."""
    (config_dir / "config.lab.yaml").write_bytes(raw)

    problem = refused(config_dir)

    assert problem.expected == "UTF-8 text"
    assert problem.found.startswith("the byte 0x")
    assert problem.origin.line is not None


def test_a_byte_order_mark_is_accepted(config_dir: Path) -> None:
    """Some editors write one."""
    (config_dir / "config.lab.yaml").write_bytes(b"\xef\xbb\xbfsystem: {dataDir: /x}")

    assert read_tiers(config_dir, None, {}).files[1].tree.items.keys() == {"system"}


def test_an_empty_file_is_refused(config_dir: Path) -> None:
    """A file that was truncated must not pass for one that sets nothing."""
    (config_dir / "config.lab.yaml").write_text("")

    problem = refused(config_dir)

    assert problem.kind is ProblemKind.SYNTAX
    assert problem.found == "nothing"
    assert problem.expected == "sections with keys, or {} to set nothing"


def test_a_duplicate_key_is_named_with_both_lines(config_dir: Path) -> None:
    """The error has the second line, and the first in its expectation."""
    (config_dir / "config.lab.yaml").write_text("api:\n  port: 1\n  port: 2\n")

    problem = refused(config_dir)

    assert problem.kind is ProblemKind.DUPLICATE
    assert problem.origin.line == 3
    assert problem.expected == "it only once (line 2)"


def test_a_pipe_or_directory_in_place_of_a_file_is_refused(config_dir: Path) -> None:
    """Neither holds the program up."""
    file = config_dir / "config.lab.yaml"
    file.unlink()
    os.mkfifo(file)
    assert refused(config_dir).found == "no plain file"
    file.unlink()
    file.mkdir()
    assert refused(config_dir).found in ("no plain file", "is a directory")


def test_a_dangling_link_is_refused(config_dir: Path) -> None:
    """A file that is listed but can't be opened is named with the reason."""
    file = config_dir / "config.lab.yaml"
    file.unlink()
    file.symlink_to("gone")

    problem = refused(config_dir)

    assert problem.origin.name == str(file)
    assert problem.found == "no such file or directory"
