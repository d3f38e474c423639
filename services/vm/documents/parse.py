"""VM documents as texts: YAML or JSON, every error with its place."""

from __future__ import annotations

import re

from protocol.errors import RemoteProtocolError
from protocol.records import Plain, from_wire, to_wire
from services.vm.documents.errors import DocumentError
from services.vm.documents.model import VmDocument

DEPTH_MAX = 6
NODES_MAX = 4096
DOCUMENTS_MAX = 256
# Fields of the records that are numbers or switches; all else is text, whatever YAML 1.1 thinks:
# to it 52:54:00:00:00:01 is a number to the base 60, and a VM called 007 is number 7.
_NUMBERS = frozenset({"count", "sockets", "cores", "threads", "boot", "priority"})
_SWITCHES = frozenset({"secure_boot", "read_only", "guest_agent", "autostart"})
_BOOLS = {"true": True, "false": False}
_INTEGER = re.compile(r"-?[0-9]{1,12}")
_STEP = re.compile(r"\.?([^.\[\]]+)|\[([0-9]+)\]")


def parse_documents(text: str, place: str) -> tuple[VmDocument, ...]:
    """Read the documents of a text; YAML separates several by ``---``.

    Args:
        text: of YAML or JSON.
        place: what messages call the text, such as a file's name.

    Raises:
        DocumentError: it is no YAML, or a document is not valid; the message says the line, the
            key's path, and what is expected.
    """
    found: list[VmDocument] = []
    for node in _compose(text, place):
        _check_node(node, place)
        found.append(_document(node, place))
    if not found:
        raise DocumentError(f"{place}: it holds no document", place=place)
    names = [document.name for document in found]
    for name in names:
        if names.count(name) > 1:
            raise DocumentError(f"{place}: {name} is there {names.count(name)} times", place=place)
    return tuple(found)


def document_from_wire(value: Plain) -> VmDocument:
    """A document as it came in a message or from the database.

    Raises:
        DocumentError: it is not valid.
    """
    try:
        return from_wire(VmDocument, value)
    except RemoteProtocolError as exc:
        raise DocumentError(_without_class(str(exc))) from exc


def render_document(document: VmDocument) -> str:
    """The document as YAML; what equals its default is left out."""
    import yaml

    return yaml.safe_dump(to_wire(document), sort_keys=False, allow_unicode=True)


def _compose(text: str, place: str) -> list[Plain]:
    import yaml  # 20 ms that only reading documents pays

    nodes: list[Plain] = []
    try:
        for event in yaml.parse(text, Loader=yaml.CBaseLoader):
            # Aliases make a short text large, or endless.
            if getattr(event, "anchor", None) is not None:
                line = getattr(event.start_mark, "line", 0) + 1
                raise DocumentError(
                    f"{place}: line {line} has an anchor or alias; write the value", line=line
                )
        for node in yaml.compose_all(text, Loader=yaml.CBaseLoader):
            nodes.append(node)
            if len(nodes) > DOCUMENTS_MAX:
                raise DocumentError(f"{place}: more than {DOCUMENTS_MAX} documents; split it")
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        problem = getattr(exc, "problem", None) or exc
        raise DocumentError(f"{place}: no YAML{where}: {problem}") from exc
    except RecursionError as exc:
        raise DocumentError(f"{place}: it nests too deep") from exc
    return nodes


def _check_node(node: Plain, place: str) -> None:
    """Bounds, and no key twice: YAML lets the last one win, which hides the first."""
    pending = [(node, 0)]
    seen_nodes = 0
    while pending:
        found, depth = pending.pop()
        seen_nodes += 1
        line = found.start_mark.line + 1
        if depth > DEPTH_MAX or seen_nodes > NODES_MAX:
            raise DocumentError(f"{place}: line {line} nests too deep, or it has too much in it")
        if found.id == "sequence":
            pending += [(item, depth + 1) for item in found.value]
        if found.id != "mapping":
            continue
        keys: set[str] = set()
        for key, value in found.value:
            line = key.start_mark.line + 1
            if key.id != "scalar":
                raise DocumentError(f"{place}: line {line} has a key that is no word", line=line)
            if key.value in keys:
                raise DocumentError(
                    f"{place}: line {line} repeats the key {key.value!r:.60}", line=line
                )
            keys.add(key.value)
            pending.append((value, depth + 1))


def _document(node: Plain, place: str) -> VmDocument:
    try:
        return from_wire(VmDocument, _plain(node))
    except RemoteProtocolError as exc:
        detail = _without_class(str(exc))
        line = _line_of(node, detail)
        raise DocumentError(f"{place}: line {line}: {detail}", place=place, line=line) from exc


def _plain(node: Plain, key: str = "", parent: str = "") -> Plain:
    if node.id == "mapping":
        return {name.value: _plain(value, name.value, key) for name, value in node.value}
    if node.id == "sequence":
        return [_plain(item, "", key) for item in node.value]
    text: str = node.value
    is_number = key in _NUMBERS or (key == "maximum" and parent == "cpus")
    # Not in labels: their keys are the user's.
    if is_number and parent != "labels" and _INTEGER.fullmatch(text):
        return int(text)
    if key in _SWITCHES and parent != "labels":
        return _BOOLS.get(text, text)
    return text


def _without_class(message: str) -> str:
    return message.removeprefix(VmDocument.__name__).lstrip(".: ")


def _line_of(node: Plain, message: str) -> int:
    """The line of the deepest node that the message's dotted path leads to."""
    path = message.split(" ", 1)[0].rstrip(":,")
    found = node
    at = 0
    while step := _STEP.match(path, at):
        at = step.end()
        if step[1] is not None and found.id == "mapping":
            values = [value for name, value in found.value if name.value == step[1]]
        elif step[2] is not None and found.id == "sequence":
            values = found.value[int(step[2]) : int(step[2]) + 1]
        else:
            break
        if not values:
            break
        found = values[0]
    unknown = re.search(r"unknown field '([^']+)'", message)
    if unknown is not None and found.id == "mapping":
        for name, _value in found.value:
            if name.value == unknown[1]:
                return int(name.start_mark.line) + 1
    return int(found.start_mark.line) + 1
