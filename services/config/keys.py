"""What is known about every key, read off the model: one table for names, texts and documents."""

from __future__ import annotations

import enum
import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import GenericAlias, NoneType

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from protocol.records import Plain
from services.config.durations import format_duration
from services.config.kinds import Duration, Expected, Section
from services.config.model import Config

VARIABLE_PREFIX = "NOVACRON_"

# The member of Duration that tells it from any other float.
_DURATION_MARK = typing.get_args(Duration)[1]


class KeyKind(enum.Enum):
    """How a key's value is written as text."""

    SWITCH = "true or false"
    WHOLE = "number"
    DURATION = "duration"
    CHOICE = "choice"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        path: dotted, as in files: ``dwcp.transport.maxStreams``.
        kind: of the value, or of each value of a list.
        is_list: the value is a list.
        is_optional: null is allowed.
        is_secret: the value is never shown.
        expected: what the value should be, for an error's sentence.
        choices: the allowed texts of a CHOICE.
        default: the built-in value as a file would have it.
        description: what it means.
    """

    path: str
    kind: KeyKind
    is_list: bool
    is_optional: bool
    is_secret: bool
    expected: str
    choices: tuple[str, ...]
    default: Plain
    description: str

    @property
    def variable(self) -> str:
        """The environment variable that sets the key."""
        return variable_name(self.path)


@dataclass(frozen=True, slots=True)
class KeyTable:
    """All keys.

    Attributes:
        keys: by dotted path, in the order of the model.
        sections: dotted path of each section, with the full paths of what it holds; the root's
            path is empty.
        variables: dotted path by variable name.
    """

    keys: Mapping[str, Key]
    sections: Mapping[str, tuple[str, ...]]
    variables: Mapping[str, str]


def variable_name(path: str) -> str:
    """The variable of a dotted key: ``api.port`` is ``NOVACRON_API_PORT``."""
    return VARIABLE_PREFIX + path.replace(".", "_").upper()


@functools.cache
def key_table() -> KeyTable:
    """Read the table off the model; 1 ms, once."""
    keys: dict[str, Key] = {}
    sections: dict[str, tuple[str, ...]] = {}
    _collect(Config, "", keys, sections)
    return KeyTable(keys, sections, {key.variable: path for path, key in keys.items()})


def section_name(path: str) -> str:
    """The section of a dotted key; empty for the root."""
    return path.rpartition(".")[0]


def _collect(
    section: type[Section], prefix: str, keys: dict[str, Key], sections: dict[str, tuple[str, ...]]
) -> None:
    names = []
    sections[prefix.removesuffix(".")] = ()  # holds the place: parents come before children
    for field in section.model_fields.values():
        path = f"{prefix}{field.alias}"
        names.append(path)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            _collect(field.annotation, f"{path}.", keys, sections)
        else:
            keys[path] = _key(path, field)
    sections[prefix.removesuffix(".")] = tuple(names)


class _Facts:
    """A type expression taken apart."""

    def __init__(self, expression: Plain, metadata: typing.Iterable[Plain]) -> None:
        self.base: Plain = expression
        self.is_list = False
        self.is_optional = False
        self.marks = list(metadata)
        self._take_apart(expression)

    def _take_apart(self, expression: Plain) -> None:
        arguments = typing.get_args(expression)
        if hasattr(expression, "__metadata__"):
            self.marks += expression.__metadata__
            self._take_apart(expression.__origin__)
        elif NoneType in arguments:
            self.is_optional = True
            self._take_apart(next(item for item in arguments if item is not NoneType))
        elif isinstance(expression, GenericAlias):  # tuple[X, ...]
            self.is_list = True
            self._take_apart(arguments[0])
        else:
            self.base = expression

    def limit(self, name: str) -> Plain:
        """A bound such as ``ge``, wherever among the metadata it stands; the innermost wins."""
        found = None
        for mark in self.marks:
            for item in (mark, *getattr(mark, "metadata", ())):
                value = getattr(item, name, None)
                found = found if value is None else value
        return found


def _key(path: str, field: FieldInfo) -> Key:
    facts = _Facts(field.annotation, field.metadata)
    kind = _kind(facts)
    choices = tuple(str(item.value) for item in facts.base) if kind is KeyKind.CHOICE else ()
    return Key(
        path=path,
        kind=kind,
        is_list=facts.is_list,
        is_optional=facts.is_optional,
        is_secret=facts.base is SecretStr,
        expected=_expected(facts, kind, choices),
        choices=choices,
        default=_plain(field.default, kind),
        description=field.description or "",
    )


def _kind(facts: _Facts) -> KeyKind:
    if _DURATION_MARK in facts.marks:
        return KeyKind.DURATION
    if facts.base is bool:
        return KeyKind.SWITCH
    if facts.base is int:
        return KeyKind.WHOLE
    return KeyKind.CHOICE if issubclass(facts.base, enum.Enum) else KeyKind.TEXT


def _expected(facts: _Facts, kind: KeyKind, choices: tuple[str, ...]) -> str:
    for mark in facts.marks:
        if isinstance(mark, Expected):
            text = mark.text
            if facts.is_optional and "null" not in text:
                text += ", or null"
            return _list_of(text, facts) if facts.is_list else text
    low, high = facts.limit("ge"), facts.limit("le")
    if kind is KeyKind.SWITCH:
        return "true or false"
    if kind is KeyKind.DURATION:
        range_text = f"from {format_duration(low)} to {format_duration(high)}"
        return f"a duration such as 30s, {range_text}"
    if kind is KeyKind.CHOICE:
        text = f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
        return _list_of(", ".join(choices), facts) if facts.is_list else text
    if facts.is_list:
        return _list_of(f"whole numbers from {low} to {high}", facts)
    return f"a whole number from {low} to {high}"


def _list_of(text: str, facts: _Facts) -> str:
    at_least = " and at least one" if facts.limit("min_length") else ""
    return f"a list of {text}; each once{at_least}"


def _plain(value: Plain, kind: KeyKind) -> Plain:
    if isinstance(value, tuple):
        return [_plain(item, kind) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if kind is KeyKind.DURATION:
        return format_duration(value)
    return str(value) if isinstance(value, Path) else value
