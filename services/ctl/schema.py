"""The node's records as the JSON that novacronctl prints: every field present, none left out.

On the wire a field that equals its default is absent; a reader of JSON should not have to know
the defaults. docs/status.schema.json describes the result.
"""

from __future__ import annotations

import dataclasses
import enum

from protocol.records import Plain


def to_json(value: object) -> Plain:
    """Turn a record into maps, lists and scalars, with all its fields."""
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return {
            field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value
