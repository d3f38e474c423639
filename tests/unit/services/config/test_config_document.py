"""YAML and JSON texts with their lines."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.records import Plain
from services.config.document import Branch, DocumentError, Leaf, parse_json, parse_yaml


def plain(node: Leaf | Branch) -> Plain:
    """The tree without its lines."""
    if isinstance(node, Leaf):
        return node.value
    return {key: plain(value) for key, value in node.items.items()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("42", 42),
        ("-7", -7),
        ("010", 10),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("30s", "30s"),
        ("1:30", "1:30"),
        ("2024-01-02", "2024-01-02"),
        ("0x10", "0x10"),
        ("9" * 30, "9" * 30),
        (".inf", ".inf"),
        ("'42'", "42"),
        ('"true"', "true"),
        ("''", ""),
        ("[1, a, true]", [1, "a", True]),
        ("[]", []),
        ("|\n  two\n  lines", "two\nlines"),
    ],
)
def test_yaml_scalars_follow_the_core_schema(text: str, value: Plain) -> None:
    """Only true, false, null and numbers are special; no, on, dates and times are texts."""
    tree = parse_yaml(f"key: {text}")

    assert plain(tree) == {"key": value}
    assert type(plain(tree)["key"]) is type(value)


YAML_LINES = """\
# a comment
api:
  port: 1
  cors:

    allowedOrigins:
      - a
      - b
system: {logLevel: info,
  group: x}
"""
JSON_LINES = """\

{ "api": {
\t"port": 1,
    "cors": {
        "allowedOrigins": [
            "a", "b"]
    }}, "system": {"logLevel": "info",
  "group": "x"}}
"""


@pytest.mark.parametrize(
    ("tree", "lines"),
    [
        (
            parse_yaml(YAML_LINES),
            {"api": 2, "port": 3, "cors": 4, "allowedOrigins": 6, "system": 9},
        ),
        (
            parse_json(JSON_LINES),
            {"api": 2, "port": 3, "cors": 4, "allowedOrigins": 5, "system": 7},
        ),
    ],
    ids=["yaml", "json"],
)
def test_every_key_knows_its_line(tree: Branch, lines: dict[str, int]) -> None:
    """The line is the key's, in both formats."""
    api = tree.items["api"]
    assert isinstance(api, Branch)
    cors = api.items["cors"]
    assert isinstance(cors, Branch)

    found = {key: node.line for branch in (tree, api, cors) for key, node in branch.items.items()}

    assert found == lines
    assert plain(tree) == {
        "api": {"port": 1, "cors": {"allowedOrigins": ["a", "b"]}},
        "system": {"logLevel": "info", "group": "x"},
    }


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("", 1, "nothing"),
        ("# only a comment\n", 2, "nothing"),
        ("---\n", 2, "nothing"),
        ("null", 1, "nothing"),
        ("42", 1, "a single value or list"),
        ("- a\n- b", 1, "a single value or list"),
        ("a: 1\nb: 2\na: 3", 3, "the key 'a' a second time"),
        ("s:\n  a: 1\n  a: 2", 3, "the key 'a' a second time"),
        ("a: [1", 1, "no YAML"),
        ("a: 1\n b: 2", 2, "no YAML"),
        ("a: 'x\n\n", 1, "no YAML"),
        ("a:\n\t- b", 2, "no YAML"),
        ("a: b: c", 1, "no YAML"),
        ("x: 1\na: \x01", 2, "no YAML"),
        ("a: &anchor 1\nb: *anchor", 1, "an anchor or alias"),
        ("x: 1\na: *gone", 2, "an anchor or alias"),
        ("a: !!python/object/apply:os.system [id]", 1, "the tag tag:yaml.org,2002:python"),
        ("a: !secret x", 1, "the tag !secret"),
        ("a: !!str 1", 1, "the tag tag:yaml.org,2002:str"),
        ("a: 1\n---\nb: 2", 2, "a second document"),
        ("a:\n  - [1]", 2, "a list or section in a list"),
        ("a:\n  - {b: 1}", 2, "a list or section in a list"),
        ("? [a]\n: 1", 1, "a list or section as a key"),
        ("{a: " * 9 + "1" + "}" * 9, 1, "more than 8 levels"),
    ],
)
def test_what_is_no_plain_yaml_is_refused_with_its_line(text: str, line: int, found: str) -> None:
    """Faults name their line, and tags, anchors, duplicates and depth are faults."""
    with pytest.raises(DocumentError) as caught:
        parse_yaml(text)

    assert caught.value.line == line
    assert caught.value.found.startswith(found)


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("", 1, "nothing"),
        ("  \n", 1, "nothing"),
        ("null", 1, "nothing"),
        ("[1]", 1, "a single value or list"),
        ('{\n"a": 1,\n"a": 2}', 3, "the key 'a' a second time"),
        ('{"a": 1,\n}', 2, "no JSON"),
        ('{"a": 1\n', 2, "no JSON"),
        ('{"a": NaN}', 1, "no JSON: NaN"),
        ('{"a": -Infinity}', 1, "no JSON: -Infinity"),
        ('{"a": 1} {"b": 2}', 1, "no JSON"),
        ("{'a': 1}", 1, "no JSON"),
        ('{"a": 1} // comment', 1, "no JSON"),
        ('{"a":\n[[1]]}', 2, "a list or section in a list"),
        ('{"a": ' + "9" * 5000 + "}", 1, "no JSON"),
        ('{"a":' * 9 + "1" + "}" * 9, 1, "more than 8 levels"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, 1, "more than 8 levels"),
    ],
)
def test_what_is_no_json_is_refused_with_its_line(text: str, line: int, found: str) -> None:
    """Faults name their line; comments, NaN, duplicates and depth are faults."""
    with pytest.raises(DocumentError) as caught:
        parse_json(text)

    assert caught.value.line == line
    assert caught.value.found.startswith(found)


@pytest.mark.parametrize("bomb", ["{a: " * 60_000, "[" * 200_000, "- " * 100_000, "? " * 100_000])
def test_a_deep_text_is_refused_at_once(bomb: str) -> None:
    """The parser stops at the depth limit instead of running out of stack or time."""
    start_s = time.monotonic()

    with pytest.raises(DocumentError):
        parse_yaml(bomb)

    assert time.monotonic() - start_s < 2


def test_eight_levels_are_allowed() -> None:
    """The limit is the stated one."""
    text = "{a: " * 8 + "1" + "}" * 8

    assert parse_yaml(text).items.keys() == {"a"}


SCALARS = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(max_size=20)
LEAVES = SCALARS | st.lists(SCALARS, max_size=3)
# Three levels by hand: st.recursive would now and then go beyond the depth limit.
SECTIONS = st.dictionaries(st.text(max_size=8), LEAVES, max_size=3)
TREES = st.dictionaries(
    st.text(max_size=8),
    LEAVES | st.dictionaries(st.text(max_size=8), LEAVES | SECTIONS, max_size=3),
    max_size=4,
)


@given(TREES, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_json_is_read_as_the_standard_library_reads_it(
    tree: dict[str, Plain], indent: int | str | None, ensure_ascii: bool
) -> None:
    """Whatever JSON is written, with escapes or without, comes back as the same values."""
    text = json.dumps(tree, indent=indent, ensure_ascii=ensure_ascii)

    assert plain(parse_json(text)) == tree


@given(st.text(alphabet="{}[]:,-#&*!|>\"'%@`\n\t ab1~?", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes either parser fail in another way than it says."""
    for parse in (parse_yaml, parse_json):
        with contextlib.suppress(DocumentError):
            assert isinstance(parse(text), Branch)
