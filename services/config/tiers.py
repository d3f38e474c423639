"""The files of a configuration directory: which there are, which apply, and reading them.

    config.default.{yaml,yml,json}         every key
    config.<environment>.{yaml,yml,json}   what differs there

Imports neither pydantic nor the model: novacronctl uses it on every call.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.config.document import Branch, DocumentError, Leaf, parse_json, parse_yaml
from services.config.errors import (
    ConfigError,
    Problem,
    ProblemKind,
    closest,
    did_you_mean,
    shown,
)
from services.config.origins import BUILT_IN, Origin, in_file, in_flag, in_variable

ENVIRONMENT_VARIABLE = "NOVACRON_ENVIRONMENT"
ENVIRONMENT_DEFAULT = "production"
# The shipped default file has 8 KiB; a larger one than this is not a configuration.
FILE_SIZE_MAX = 256 * 1024

_SUFFIXES = ("yaml", "yml", "json")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


@dataclass(frozen=True, slots=True)
class TierFile:
    """A file that was read."""

    path: Path
    tree: Branch


@dataclass(frozen=True, slots=True)
class Tiers:
    """The files that apply, in order, and the environment that chose the second.

    Attributes:
        files: the default file and the environment's file.
        environment: its name.
        environment_origin: who said so.
    """

    files: tuple[TierFile, ...]
    environment: str
    environment_origin: Origin


def read_tiers(config_dir: Path, environment: str | None, environ: Mapping[str, str]) -> Tiers:
    """Read the files that apply.

    Args:
        config_dir: directory with ``config.default.*``.
        environment: what the flag says; None to ask the variable, then the default file.
        environ: the process's environment variables.

    Raises:
        ConfigError: a directory or file is missing, unreadable, doubled or malformed, or there is
            no such environment.
    """
    default = _read(_tier_path(config_dir, "default"))
    name, origin = _environment(default, environment, environ)
    known = known_environments(config_dir)
    if name not in known:
        hint = did_you_mean(closest(name, known))
        expected = f"one of {', '.join(known)}" if known else "a file config.<environment>.yaml"
        raise _failed(
            ProblemKind.ENVIRONMENT,
            origin,
            shown(name),
            f"{expected} in {config_dir}",
            key="environment",
            hint=hint,
        )
    return Tiers((default, _read(_tier_path(config_dir, name))), name, origin)


def known_environments(config_dir: Path) -> tuple[str, ...]:
    """The names of the environments that have a file, in order."""
    names = {entry.name.split(".")[1] for entry in _files(config_dir) if entry.name.count(".") == 2}
    return tuple(sorted(name for name in names - {"default"} if _NAME.fullmatch(name)))


def has_default_file(config_dir: Path) -> bool:
    """Tell whether a directory holds a configuration, without reading it."""
    return any((config_dir / f"config.default.{suffix}").exists() for suffix in _SUFFIXES)


def lookup(tree: Branch, section: str, key: str) -> Leaf | None:
    """A single value of a file; None where the file leaves it out."""
    branch = tree.items.get(section)
    if not isinstance(branch, Branch):
        return None
    leaf = branch.items.get(key)
    return leaf if isinstance(leaf, Leaf) else None


def _environment(
    default: TierFile, flag: str | None, environ: Mapping[str, str]
) -> tuple[str, Origin]:
    if flag is not None:
        return flag, in_flag("--environment")
    if ENVIRONMENT_VARIABLE in environ:
        return environ[ENVIRONMENT_VARIABLE], in_variable(ENVIRONMENT_VARIABLE)
    node = default.tree.items.get("environment")
    if node is None:
        return ENVIRONMENT_DEFAULT, BUILT_IN
    origin = in_file(default.path, node.line)
    if isinstance(node, Leaf) and isinstance(node.value, str):
        return node.value, origin
    found = "a section" if isinstance(node, Branch) else shown(node.value)
    raise _failed(ProblemKind.VALUE, origin, found, "a name", key="environment")


def _files(config_dir: Path) -> list[Path]:
    try:
        return [
            entry
            for entry in config_dir.iterdir()
            if entry.name.startswith("config.") and entry.suffix[1:] in _SUFFIXES
        ]
    except OSError as exc:
        raise _unreadable(config_dir, exc, "a directory with config.default.yaml") from exc


def _tier_path(config_dir: Path, name: str) -> Path:
    names = [f"config.{name}.{suffix}" for suffix in _SUFFIXES]
    present = [entry.name for entry in _files(config_dir) if entry.name in names]
    if not present:
        raise _failed(
            ProblemKind.UNREADABLE,
            in_file(config_dir),
            "no such file",
            f"one of {', '.join(names)}",
        )
    if len(present) > 1:
        found = " and ".join(sorted(present))
        expected = "only one of them"
        raise _failed(ProblemKind.DUPLICATE, in_file(config_dir), found, expected)
    return config_dir / present[0]


def _read(path: Path) -> TierFile:
    try:
        text = _read_text(path)
    except OSError as exc:
        raise _unreadable(path, exc, "a readable file") from exc
    try:
        tree = parse_json(text) if path.suffix == ".json" else parse_yaml(text)
    except DocumentError as exc:
        kind = ProblemKind.DUPLICATE if exc.is_duplicate else ProblemKind.SYNTAX
        raise _failed(kind, in_file(path, exc.line), exc.found, exc.expected) from exc
    return TierFile(path, tree)


def _read_text(path: Path) -> str:
    # O_NONBLOCK: a named pipe in the file's place must not hold the start up.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _failed(ProblemKind.UNREADABLE, in_file(path), "no plain file", "a plain file")
        raw = file.read(FILE_SIZE_MAX + 1)
    if len(raw) > FILE_SIZE_MAX:
        found = f"more than {FILE_SIZE_MAX} bytes"
        raise _failed(ProblemKind.UNREADABLE, in_file(path), found, "a file of at most that size")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        found = f"the byte 0x{raw[exc.start]:02x}"
        raise _failed(ProblemKind.UNREADABLE, in_file(path, line), found, "UTF-8 text") from exc


def _unreadable(path: Path, exc: OSError, expected: str) -> ConfigError:
    found = (exc.strerror or str(exc)).lower()
    return _failed(ProblemKind.UNREADABLE, in_file(path), found, expected)


def _failed(
    kind: ProblemKind, origin: Origin, found: str, expected: str, *, key: str = "", hint: str = ""
) -> ConfigError:
    return ConfigError([Problem(kind, origin, found, expected, key, hint)])
