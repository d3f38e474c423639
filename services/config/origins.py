"""Where a configuration value came from."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path


class OriginKind(enum.Enum):
    """The tier that set a value; a later one wins."""

    BUILT_IN = "built-in"
    FILE = "file"
    VARIABLE = "variable"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written.

    Attributes:
        kind: the tier.
        name: path of the file, name of the variable, or the flag; empty for a built-in value.
        line: line in the file, from 1.
    """

    kind: OriginKind
    name: str = ""
    line: int | None = None

    def __str__(self) -> str:
        if self.kind is OriginKind.BUILT_IN:
            return "built in"
        return self.name if self.line is None else f"{self.name}:{self.line}"


BUILT_IN = Origin(OriginKind.BUILT_IN)


def in_file(path: Path, line: int | None = None) -> Origin:
    """The origin of something in a file."""
    return Origin(OriginKind.FILE, str(path), line)


def in_variable(name: str) -> Origin:
    """The origin of something that an environment variable says."""
    return Origin(OriginKind.VARIABLE, name)


def in_flag(name: str) -> Origin:
    """The origin of something that a command line flag says."""
    return Origin(OriginKind.FLAG, name)
