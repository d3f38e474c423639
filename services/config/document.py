"""YAML and JSON text to a tree of sections and values that knows its lines.

Only what a configuration needs: sections (maps with text keys), scalars, and lists of scalars.
YAML scalars follow the core schema of YAML 1.2, so ``no`` is a text and not false, and ``010``
is ten. Tags, anchors, aliases and several documents are refused: they are means to say the same
thing twice or to build objects. The tree is built from the parser's events and not by a loader,
because a loader neither bounds the depth nor reports duplicate keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from protocol.records import Plain

# The deepest key has three parts; the reserve only makes the error say "unknown key" instead.
DEPTH_MAX = 8

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
# At most 18 digits: what fits 64 bits; longer ones are texts and refused as such.
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,18}|[0-9]{1,18}(\.[0-9]{0,18})?)([eE][-+]?[0-9]{1,2})?")
# Constants and not literals: the linter takes a "token" for a password.
_NEWLINE, _LIST, _OBJECT = "\n", "[", "{"
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+|\n')


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar or a list of scalars, and the line on which it begins."""

    value: Plain
    line: int


@dataclass(frozen=True, slots=True)
class Branch:
    """A section: keys in file order, each with its value or sub-section."""

    items: dict[str, Leaf | Branch]
    line: int


class DocumentError(ValueError):
    """The text is no configuration document.

    Attributes:
        line: where, from 1.
        found: what stands there.
        expected: what should stand there.
        is_duplicate: a key stands twice in one section.
    """

    def __init__(self, line: int, found: str, expected: str, *, is_duplicate: bool = False) -> None:
        super().__init__(f"line {line}: found {found}, expected {expected}")
        self.line = line
        self.found = found
        self.expected = expected
        self.is_duplicate = is_duplicate


def parse_yaml(text: str) -> Branch:
    """Read one YAML document.

    Raises:
        DocumentError: it is no plain YAML, empty, or not a section at the top.
    """
    import yaml  # 20 ms that a reader of JSON, or of variables alone, does not pay

    try:
        # A generator: reading stops at the first fault, however large the rest is.
        events = iter(yaml.parse(text, Loader=yaml.CSafeLoader))
        return _top(_yaml_document(_Events(events)))
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        # What is missing at the end is marked on a line behind it.
        last = text.rstrip("\n").count("\n")
        line = min(mark.line, last) + 1 if mark is not None else 1
        raise DocumentError(line, f"no YAML: {exc.problem or exc.context}", "YAML") from exc
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1 if exc.position >= 0 else 1
        raise DocumentError(line, f"no YAML: {exc.reason}", "YAML") from exc


def parse_json(text: str) -> Branch:
    """Read one JSON document (RFC 8259: no comments, no NaN, no duplicate names).

    Raises:
        DocumentError: it is no JSON, empty, or not an object at the top.
    """
    if not text.strip():
        raise _empty(1)
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as exc:
        raise DocumentError(exc.lineno, f"no JSON: {exc.msg}", "JSON") from exc
    except RecursionError:
        raise _too_deep(1) from None
    except ValueError as exc:  # NaN, Infinity, or a number of thousands of digits
        raise DocumentError(1, f"no JSON: {exc}", "JSON") from exc
    # The text is known to be JSON now; only the lines of its values are still wanted.
    tokens = _Tokens(text)
    return _top(_json_value(tokens, tokens.next(), 0))


class _Events:
    """The parser's events one by one, with what all of them must fulfil."""

    def __init__(self, events: Iterator[Plain]) -> None:
        self._events = events

    def next(self) -> tuple[str, Plain, int]:
        event = next(self._events)
        name = type(event).__name__.removesuffix("Event")
        line: int = event.start_mark.line + 1
        if name == "Alias" or getattr(event, "anchor", None) is not None:
            raise DocumentError(line, "an anchor or alias", "the value itself")
        if getattr(event, "tag", None) is not None:
            raise DocumentError(line, f"the tag {event.tag}", "plain YAML without tags")
        return name, event, line


def _yaml_document(events: _Events) -> Leaf | Branch:
    events.next()  # the stream begins
    name, _, line = events.next()
    if name == "StreamEnd":
        raise _empty(line)
    tree = _yaml_value(events, events.next(), 0)
    events.next()  # the document ends
    name, _, line = events.next()
    if name != "StreamEnd":
        raise DocumentError(line, "a second document", "one document in a file")
    return tree


def _yaml_value(events: _Events, first: tuple[str, Plain, int], depth: int) -> Leaf | Branch:
    name, event, line = first
    if name == "Scalar":
        return Leaf(_yaml_scalar(event), line)
    if name == "SequenceStart":
        values = []
        while (entry := events.next())[0] != "SequenceEnd":
            if entry[0] != "Scalar":
                raise DocumentError(entry[2], "a list or section in a list", "single values")
            values.append(_yaml_scalar(entry[1]))
        return Leaf(values, line)
    if depth >= DEPTH_MAX:
        raise _too_deep(line)
    branch = Branch({}, line)
    while (entry := events.next())[0] != "MappingEnd":
        if entry[0] != "Scalar":
            raise DocumentError(entry[2], "a list or section as a key", "a name")
        value = _yaml_value(events, events.next(), depth + 1)
        _add(branch, str(entry[1].value), entry[2], value)
    return branch


def _yaml_scalar(event: Plain) -> Plain:
    text: str = event.value
    if not event.implicit[0]:  # quoted, or a block
        return text
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


class _Tokens:
    """The tokens of a text that is known to be JSON, each with its line."""

    def __init__(self, text: str) -> None:
        self._tokens = iter(_JSON_TOKEN.findall(text))
        self._line = 1

    def next(self) -> tuple[str, int]:
        for token in self._tokens:
            if token != _NEWLINE:
                return token, self._line
            self._line += 1
        return "", self._line


def _json_value(tokens: _Tokens, first: tuple[str, int], depth: int) -> Leaf | Branch:
    token, line = first
    if token == _LIST:
        return Leaf(_json_list(tokens), line)
    if token != _OBJECT:
        return Leaf(json.loads(token), line)
    if depth >= DEPTH_MAX:
        raise _too_deep(line)
    branch = Branch({}, line)
    while (entry := tokens.next())[0] != "}":
        if entry[0] == ",":
            continue
        tokens.next()  # the colon
        value = _json_value(tokens, tokens.next(), depth + 1)
        _add(branch, json.loads(entry[0]), entry[1], value)
    return branch


def _json_list(tokens: _Tokens) -> list[Plain]:
    values = []
    while (entry := tokens.next())[0] != "]":
        if entry[0] in "[{":
            raise DocumentError(entry[1], "a list or section in a list", "single values")
        if entry[0] != ",":
            values.append(json.loads(entry[0]))
    return values


def _add(branch: Branch, key: str, line: int, value: Leaf | Branch) -> None:
    if (earlier := branch.items.get(key)) is not None:
        found = f"the key {key[:60]!r} a second time"
        raise DocumentError(line, found, f"it only once (line {earlier.line})", is_duplicate=True)
    # The line of the key: a section's first value and a block text begin one line later.
    branch.items[key] = (
        Branch(value.items, line) if isinstance(value, Branch) else Leaf(value.value, line)
    )


def _top(tree: Leaf | Branch) -> Branch:
    if isinstance(tree, Branch):
        return tree
    if tree.value is None:
        raise _empty(tree.line)
    raise DocumentError(tree.line, "a single value or list", "sections with keys")


def _empty(line: int) -> DocumentError:
    return DocumentError(line, "nothing", "sections with keys, or {} to set nothing")


def _too_deep(line: int) -> DocumentError:
    return DocumentError(line, f"more than {DEPTH_MAX} levels", "sections of at most that depth")


def _refuse_constant(name: str) -> Plain:
    raise ValueError(f"{name} is no number")
