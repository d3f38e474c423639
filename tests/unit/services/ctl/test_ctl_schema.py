"""docs/status.schema.json against the records that it describes."""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from protocol.messages.status import (
    SCHEMA,
    ComponentStatus,
    NodeStatus,
    PhaseStatus,
    PlatformStatus,
)
from protocol.records import from_wire
from services.ctl.schema import to_json
from tests.unit.services.ctl.ctl_samples import node

DOCUMENT = json.loads(
    (Path(__file__).parents[4] / "docs" / "status.schema.json").read_text(encoding="utf-8")
)
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def expected(kind: Any) -> dict[str, Any]:
    """The schema of a field's type, without its description."""
    origin = typing.get_origin(kind)
    if origin is tuple:
        return {"type": "array", "items": expected(typing.get_args(kind)[0])}
    if origin in (typing.Union, types.UnionType):
        (other,) = (arg for arg in typing.get_args(kind) if arg is not type(None))
        return {"type": [expected(other)["type"], "null"]}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    if dataclasses.is_dataclass(kind):
        return {"$ref": f"#/$defs/{typing.cast('type', kind).__name__}"}
    return {"type": _TYPES[kind]}


@pytest.mark.parametrize("record", [NodeStatus, PlatformStatus, PhaseStatus, ComponentStatus])
def test_schema_matches_the_record(record: type) -> None:
    """Every field of a record is described, required, typed as in the code, and nothing else is."""
    schema = DOCUMENT if record is NodeStatus else DOCUMENT["$defs"][record.__name__]
    hints = typing.get_type_hints(record)
    described = {
        name: {key: value for key, value in field.items() if key != "description"}
        for name, field in schema["properties"].items()
    }
    wanted = {name: expected(kind) for name, kind in hints.items()}
    if record is NodeStatus:
        wanted["schema"] = {"const": SCHEMA}

    assert described == wanted
    assert schema["required"] == list(hints)
    assert schema["additionalProperties"] is False


def test_every_definition_is_of_a_record() -> None:
    """The document defines nothing that the node does not send."""
    assert set(DOCUMENT["$defs"]) == {"PlatformStatus", "PhaseStatus", "ComponentStatus"}
    assert DOCUMENT["$id"] == SCHEMA


def test_json_has_every_field() -> None:
    """The JSON leaves no field out, and reads back as the same record."""
    status = node()

    value = json.loads(json.dumps(to_json(status)))

    assert list(value) == DOCUMENT["required"]
    assert all(
        list(item) == DOCUMENT["$defs"]["ComponentStatus"]["required"]
        for item in value["components"]
    )
    assert from_wire(NodeStatus, value) == status


def test_json_of_plain_values() -> None:
    """Maps and lists within a record stay what they are."""
    assert to_json({"a": (1, None)}) == {"a": [1, None]}
