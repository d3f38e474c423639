"""Load the configuration: files, variables and flags in order, each value with its origin.

    config.default.* -> config.<environment>.* -> NOVACRON_SECTION_KEY -> flags

Everything that is wrong is reported at once, by one ConfigError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr, ValidationError

from protocol.records import Plain
from services.config.entries import Entry, Tier, from_files, from_variables, resolved
from services.config.errors import (
    ConfigError,
    Problem,
    ProblemKind,
    closest,
    did_you_mean,
    shown,
)
from services.config.host import HostFacts, read_host
from services.config.keys import Key, KeyKind, KeyTable, key_table
from services.config.model import Config
from services.config.notes import Note, notes_on
from services.config.origins import BUILT_IN, Origin, OriginKind, in_flag
from services.config.rules import Broken, broken_rules
from services.config.secret_reference import SecretReference
from services.config.tiers import Tiers, read_tiers

# The flags of ``novacron run`` that set a key, by the key.
FLAGS: Mapping[str, str] = {
    "environment": "--environment",
    "platform.roles": "--role",
    "system.dataDir": "--state-dir",
}


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid configuration and how it came about.

    Attributes:
        config: the values.
        origins: where each was set, by dotted key.
        notes: remarks for the operator.
        config_dir: directory of the files.
        files: the files that were read, in order.
    """

    config: Config
    origins: Mapping[str, Origin]
    notes: tuple[Note, ...]
    config_dir: Path
    files: tuple[Path, ...]

    @property
    def secrets(self) -> tuple[str, ...]:
        """The dotted keys whose values are never shown."""
        return tuple(key.path for key in key_table().keys.values() if key.is_secret)

    def values(self) -> dict[str, Plain]:
        """Each key's value as a file would have it, by dotted key, with secrets masked."""
        return plain_values(self.config)


def load(
    config_dir: Path,
    environment: str | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, Plain] | None = None,
    host: HostFacts | None = None,
) -> LoadedConfig:
    """Load and validate the configuration.

    Args:
        config_dir: directory with ``config.default.*`` and ``config.<environment>.*``.
        environment: what ``--environment`` says; None leaves it to NOVACRON_ENVIRONMENT and then
            to the default file.
        environ: the process's environment variables.
        overrides: values of flags, by dotted key, as a file would have them.
        host: what the host offers; None to look.

    Raises:
        ConfigError: with all problems that were found.
    """
    table = key_table()
    tiers = read_tiers(config_dir, environment, environ)
    problems: list[Problem] = []
    entries = from_files(tiers.files, table, problems)
    entries |= from_variables(environ, table, problems)
    entries |= _from_flags(overrides or {}, table)
    _settle_environment(entries, tiers, problems)
    literal = tuple(path for path, entry in entries.items() if _is_literal(table.keys[path], entry))
    entries = resolved(entries, table, environ, problems)
    config = _validated(entries, table, host or read_host(), problems)
    if config is None or problems:
        raise ConfigError(sorted(problems, key=_reading_order))
    origins = {path: entries[path].origin if path in entries else BUILT_IN for path in table.keys}
    return LoadedConfig(
        config=config,
        origins=origins,
        notes=notes_on(config, origins, literal),
        config_dir=config_dir,
        files=tuple(file.path for file in tiers.files),
    )


def changes(old: Config, new: Config) -> tuple[str, ...]:
    """The dotted keys whose values differ, in the order of the model."""
    before, after = old.model_dump(by_alias=True), new.model_dump(by_alias=True)
    return tuple(path for path in key_table().keys if _at(before, path) != _at(after, path))


def revealed_values(config: Config) -> dict[str, Plain]:
    """Each key's value by dotted key, with secrets as they are; for comparing, not for showing."""
    values = config.model_dump(mode="python", by_alias=True)
    return {path: _revealed(_at(values, path)) for path in key_table().keys}


def plain_values(config: Config) -> dict[str, Plain]:
    """Each key's value as a file would have it, by dotted key, with secrets masked."""
    masked = config.secrets_masked()
    values = config.model_dump(mode="python", by_alias=True)
    return {
        path: str(it) if isinstance(it := _at(values, path), SecretReference) else _at(masked, path)
        for path in key_table().keys
    }


def _revealed(value: Plain) -> Plain:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _from_flags(overrides: Mapping[str, Plain], table: KeyTable) -> dict[str, Entry]:
    entries = {}
    for path, value in overrides.items():
        assert path in table.keys, f"a flag sets {path}, which is no key"
        plain = list(value) if isinstance(value, tuple) else value
        entries[path] = Entry(Tier.FLAG, plain, in_flag(FLAGS.get(path, "a flag")))
    return entries


def _settle_environment(entries: dict[str, Entry], tiers: Tiers, problems: list[Problem]) -> None:
    """Make ``environment`` say what was chosen; a file of another one must not claim otherwise."""
    own = tiers.files[-1]
    node = own.tree.items.get("environment")
    stated = entries.get("environment")
    if node is not None and stated is not None and stated.value != tiers.environment:
        problems.append(
            Problem(
                ProblemKind.ENVIRONMENT,
                stated.origin,
                stated.found(key_table().keys["environment"]),
                f"{tiers.environment}, or nothing: the file's name says it",
                "environment",
            )
        )
    # The tier does not matter: no rule is about the environment.
    entries["environment"] = Entry(Tier.FLAG, tiers.environment, tiers.environment_origin)


def _is_literal(key: Key, entry: Entry) -> bool:
    is_written = isinstance(entry.value, str) and "${" not in entry.value
    return key.is_secret and is_written and entry.origin.kind is OriginKind.FILE


def _validated(
    entries: Mapping[str, Entry], table: KeyTable, host: HostFacts, problems: list[Problem]
) -> Config | None:
    """Build the record; what is wrong goes to ``problems``.

    Rules are checked even where single values are wrong, on the keys that are not: the operator
    should see everything in one go.
    """
    bad = {problem.key for problem in problems}
    good = {path: entry.value for path, entry in entries.items() if path not in bad}
    try:
        config = Config.model_validate(_nested(good, table))
    except ValidationError as exc:
        found = _value_problems(exc, entries, table)
        problems += found
        bad |= {problem.key for problem in found}
        good = {path: value for path, value in good.items() if path not in bad}
        config = Config.model_validate(_nested(good, table))
    for broken in broken_rules(config, host):
        if not bad.intersection(broken.keys):
            problems.append(_rule_problem(broken, plain_values(config), entries))
    return None if bad else config


def _nested(values: Mapping[str, Plain], table: KeyTable) -> dict[str, Plain]:
    root: dict[str, Plain] = {}
    for section in table.sections:
        _section_at(root, section)
    for path, value in values.items():
        section, _, name = path.rpartition(".")
        _section_at(root, section)[name] = value
    return root


def _section_at(root: dict[str, Plain], section: str) -> dict[str, Plain]:
    for name in section.split(".") if section else ():
        root = root.setdefault(name, {})
    return root


def _at(tree: Mapping[str, Plain], path: str) -> Plain:
    value: Plain = tree
    for name in path.split("."):
        value = value[name]
    return value


def _value_problems(
    exc: ValidationError, entries: Mapping[str, Entry], table: KeyTable
) -> list[Problem]:
    found: dict[str, Problem] = {}
    for error in exc.errors(include_url=False, include_context=False):
        path = ".".join(part for part in error["loc"] if isinstance(part, str))
        key, entry = table.keys[path], entries[path]
        is_item = isinstance(error["loc"][-1], int)
        text = entry.found(key, error["input"] if is_item else None)
        hint = ""
        if key.choices and isinstance(error["input"], str):
            hint = did_you_mean(closest(error["input"], key.choices))
        elif key.kind is KeyKind.TEXT and isinstance(error["input"], int | float):
            hint = "a text that looks like a number or like true needs quotes"
        problem = Problem(ProblemKind.VALUE, entry.origin, text, key.expected, path, hint)
        found.setdefault(path, problem)
    return list(found.values())


def _rule_problem(
    broken: Broken, values: Mapping[str, Plain], entries: Mapping[str, Entry]
) -> Problem:
    """Report a broken rule at the key that the latest tier set: most likely the mistake."""
    # Of several keys of one tier the rule's first.
    key = max(broken.keys, key=lambda path: entries[path].tier if path in entries else -1)
    others = [
        f"{path} is {shown(values[path])} ({_origin(entries, path)})"
        for path in broken.keys
        if path != key
    ]
    return Problem(
        ProblemKind.RULE,
        _origin(entries, key),
        shown(values[key]),
        broken.expected,
        key,
        "; ".join(others),
    )


def _origin(entries: Mapping[str, Entry], path: str) -> Origin:
    return entries[path].origin if path in entries else BUILT_IN


def _reading_order(problem: Problem) -> tuple[int, str, int]:
    origin = problem.origin
    return list(OriginKind).index(origin.kind), origin.name, origin.line or 0
