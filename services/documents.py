"""Documents that people write, in YAML or JSON: strict, bounded, and every error with its place.

A document is a record of ``protocol.records``. Its scalars are read as the record's fields say,
whatever YAML 1.1 thinks of them: to it 52:54:00:00:00:01 is a number to the base 60, and a name of
007 is number 7.
"""

from __future__ import annotations

import functools
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from protocol.dataclass import fields_of, is_dataclass
from protocol.errors import NovacronError, RemoteProtocolError
from protocol.records import Plain, from_wire

R = TypeVar("R")

DOCUMENTS_MAX = 256
_BOOLS = {"true": True, "false": False}
_NOTHING = frozenset({"", "~", "null", "Null", "NULL"})
_INTEGER = re.compile(r"-?[0-9]{1,12}")
_STEP = re.compile(r"\.?([^.\[\]]+)|\[([0-9]+)\]")


class DocumentFormat(Generic[R]):
    """Reads documents of one kind.

    Args:
        record: the class of a document.
        error: what is raised, with ``place`` and ``line`` as fields.
        nodes_max: how many values one document may have.
        depth_max: how deep they may nest.
    """

    def __init__(
        self,
        record: type[R],
        *,
        error: type[NovacronError],
        nodes_max: int = 4096,
        depth_max: int = 6,
    ) -> None:
        self._record = record
        self._error = error
        self._nodes_max = nodes_max
        self._depth_max = depth_max

    def read(self, text: str, place: str) -> tuple[R, ...]:
        """Read the documents of a text, at least one; YAML separates several by ``---``.

        Args:
            text: of YAML or JSON.
            place: what messages call the text, such as a file's name.

        Raises:
            NovacronError: of the class ``error``: it is no YAML, or a document is not valid; the
                message says the line, the key's path, and what is expected.
        """
        found: list[R] = []
        for node in self._compose(text, place):
            self._check_node(node, place)
            found.append(self._document(node, place))
        if not found:
            raise self._error(f"{place}: it holds no document", place=place)
        return tuple(found)

    def read_one(self, text: str, place: str) -> R:
        """Read a text that holds one document; otherwise as ``read``."""
        found = self.read(text, place)
        if len(found) > 1:
            raise self._error(
                f"{place}: it holds {len(found)} documents; expected one", place=place
            )
        return found[0]

    def from_wire(self, value: Plain) -> R:
        """A document as it came in a message or from a store.

        Raises:
            NovacronError: of the class ``error``: it is not valid.
        """
        try:
            return from_wire(self._record, value)
        except RemoteProtocolError as exc:
            raise self._error(self._without_class(str(exc))) from exc

    def _compose(self, text: str, place: str) -> list[Plain]:
        import yaml  # 20 ms that only reading documents pays

        nodes: list[Plain] = []
        try:
            for event in yaml.parse(text, Loader=yaml.CBaseLoader):
                # Aliases make a short text large, or endless.
                if getattr(event, "anchor", None) is not None:
                    line = getattr(event.start_mark, "line", 0) + 1
                    raise self._error(
                        f"{place}: line {line} has an anchor or alias; write the value", line=line
                    )
            for node in yaml.compose_all(text, Loader=yaml.CBaseLoader):
                nodes.append(node)
                if len(nodes) > DOCUMENTS_MAX:
                    raise self._error(f"{place}: more than {DOCUMENTS_MAX} documents; split it")
        except yaml.YAMLError as exc:
            mark = getattr(exc, "problem_mark", None)
            where = "" if mark is None else f" in line {mark.line + 1}"
            problem = getattr(exc, "problem", None) or exc
            raise self._error(f"{place}: no YAML{where}: {problem}") from exc
        except RecursionError as exc:
            raise self._error(f"{place}: it nests too deep") from exc
        return nodes

    def _check_node(self, node: Plain, place: str) -> None:
        """Bounds, and no key twice: YAML lets the last one win, which hides the first."""
        pending = [(node, 0)]
        seen_nodes = 0
        while pending:
            found, depth = pending.pop()
            seen_nodes += 1
            if depth > self._depth_max or seen_nodes > self._nodes_max:
                line = found.start_mark.line + 1
                raise self._error(f"{place}: line {line} nests too deep, or it has too much in it")
            if found.id == "sequence":
                pending += [(item, depth + 1) for item in found.value]
            elif found.id == "mapping":
                self._check_keys(found, place)
                pending += [(value, depth + 1) for _key, value in found.value]

    def _check_keys(self, node: Plain, place: str) -> None:
        keys: set[str] = set()
        for key, _value in node.value:
            line = key.start_mark.line + 1
            if key.id != "scalar":
                raise self._error(f"{place}: line {line} has a key that is no word", line=line)
            if key.value in keys:
                raise self._error(
                    f"{place}: line {line} repeats the key {key.value!r:.60}", line=line
                )
            keys.add(key.value)

    def _document(self, node: Plain, place: str) -> R:
        try:
            return from_wire(self._record, _plain(node, self._record))
        except RemoteProtocolError as exc:
            detail = self._without_class(str(exc))
            line = _line_of(node, detail)
            raise self._error(f"{place}: line {line}: {detail}", place=place, line=line) from exc

    def _without_class(self, message: str) -> str:
        return message.removeprefix(self._record.__name__).lstrip(".: ")


def _plain(node: Plain, kind: Any) -> Plain:  # Any: type expressions have no common static type
    """What the record's decoder expects; where that is not clear, the text as it stands."""
    if node.id == "mapping":
        inner = _members(kind)
        return {
            key.value: _plain(value, inner.get(key.value, inner.get("*", str)))
            for key, value in node.value
        }
    if node.id == "sequence":
        item = _members(kind).get("[]", str)
        return [_plain(value, item) for value in node.value]
    text: str = node.value
    kinds = _alternatives(kind)
    if type(None) in kinds and not node.style and text in _NOTHING:
        return None
    if int in kinds and _INTEGER.fullmatch(text):
        return int(text)
    if bool in kinds:
        return _BOOLS.get(text, text)
    return text


@functools.cache
def _members(kind: Any) -> Mapping[str, Any]:  # Any: as above
    """The kinds of what a value of a kind holds: by name, ``*`` for any name, ``[]`` in a list."""
    found: dict[str, Any] = {}
    for one in _alternatives(kind):
        origin = typing.get_origin(one)
        if is_dataclass(one):
            hints = typing.get_type_hints(one)
            found |= {field.name: hints[field.name] for field in fields_of(one)}
        elif origin is tuple:
            found["[]"] = typing.get_args(one)[0]
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            found["*"] = typing.get_args(one)[1]
    return found


@functools.cache
def _alternatives(kind: Any) -> tuple[Any, ...]:  # Any: as above
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _line_of(node: Plain, message: str) -> int:
    """The line of the deepest node that the message's dotted path leads to."""
    found = node
    for name, index in _path(message):
        if name and found.id == "mapping":
            values = [value for key, value in found.value if key.value == name]
        elif index is not None and found.id == "sequence":
            values = found.value[index : index + 1]
        else:
            break
        if not values:
            break
        found = values[0]
    unknown = re.search(r"unknown field '([^']+)'", message)
    if unknown is not None and found.id == "mapping":
        for key, _value in found.value:
            if key.value == unknown[1]:
                return int(key.start_mark.line) + 1
    return int(found.start_mark.line) + 1


def _path(message: str) -> Iterator[tuple[str, int | None]]:
    """The steps of ``networks[0].bridge: more: says`` and of what follows each colon."""
    for part in message.split(": "):
        path = part.split(" ", 1)[0].rstrip(":,")
        at = 0
        while step := _STEP.match(path, at):
            at = step.end()
            yield (step[1] or ""), (None if step[2] is None else int(step[2]))
        if " " in part:
            return
