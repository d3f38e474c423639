"""From tiers to one plain value per key: merging, variables, references; problems on the way."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from protocol.records import Plain
from services.config.convert import from_text
from services.config.document import Branch, Leaf
from services.config.errors import MASK, Problem, ProblemKind, closest, did_you_mean, shown
from services.config.keys import VARIABLE_PREFIX, Key, KeyTable
from services.config.origins import Origin, in_file, in_variable
from services.config.references import (
    UnresolvedError,
    has_reference,
    is_secret_reference,
    resolve,
)
from services.config.secret_reference import SecretReference
from services.config.tiers import TierFile
from services.security.secrets.errors import SecretReferenceError

# Variables that are not keys: NOVACRON_ENVIRONMENT is one, but the tiers have used it already.
RESERVED_VARIABLES = ("NOVACRON_CONFIG_DIR", "NOVACRON_ENVIRONMENT")
RESERVED_PREFIX = "NOVACRON_TEST_"

_KUBERNETES = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)"
)


class Tier(enum.IntEnum):
    """Who sets a value; a later one wins."""

    DEFAULT_FILE = 0
    ENVIRONMENT_FILE = 1
    VARIABLE = 2
    FLAG = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """The value that a tier gives a key.

    Attributes:
        tier: the tier.
        value: plain value, as a file would have it.
        origin: where it was written.
        reference: the text with references that ``value`` was resolved from.
    """

    tier: Tier
    value: Plain
    origin: Origin
    reference: str = ""

    def found(self, key: Key, value: Plain = None) -> str:
        """What an error shows as found; of a list, the one ``value`` that is wrong."""
        if key.is_secret and self.value is not None:
            return MASK
        text = shown(self.value if value is None else value)
        return f"{text} from {self.reference}" if self.reference else text


def from_files(
    files: tuple[TierFile, ...], table: KeyTable, problems: list[Problem]
) -> dict[str, Entry]:
    """Merge the files: a later one wins key by key, and a list replaces a list."""
    entries: dict[str, Entry] = {}
    for tier, file in zip((Tier.DEFAULT_FILE, Tier.ENVIRONMENT_FILE), files, strict=True):
        for path, leaf in _leaves(file, file.tree, "", table, problems):
            entries[path] = Entry(tier, leaf.value, in_file(file.path, leaf.line))
    return entries


def from_variables(
    environ: Mapping[str, str], table: KeyTable, problems: list[Problem]
) -> dict[str, Entry]:
    """Take the values that variables set; an unknown variable of our prefix is a problem."""
    entries: dict[str, Entry] = {}
    for name, text in sorted(environ.items()):
        if not name.startswith(VARIABLE_PREFIX) or name in RESERVED_VARIABLES:
            continue
        if name.startswith(RESERVED_PREFIX):
            continue
        path = table.variables.get(name)
        if path is None or _is_service_link(name, text):
            problems.append(_unknown_variable(name, text, table))
        else:
            value = from_text(table.keys[path], text)
            entries[path] = Entry(Tier.VARIABLE, value, in_variable(name))
    return entries


def resolved(
    entries: Mapping[str, Entry],
    table: KeyTable,
    environ: Mapping[str, str],
    problems: list[Problem],
) -> dict[str, Entry]:
    """Put variables' contents in place of the references of files.

    Runs after merging: a reference that a later tier replaced needs no variable.
    """
    result = {}
    for path, entry in entries.items():
        if is_secret_reference(entry.value):
            if (reference := _secret(table.keys[path], entry, problems)) is not None:
                result[path] = replace(entry, value=reference)
        elif _has_references(entry.value):
            try:
                result[path] = _resolve_entry(table.keys[path], entry, environ)
            except UnresolvedError as exc:
                problems.append(_reference_problem(table.keys[path], entry, exc.variable))
        else:
            result[path] = entry
    return result


def _leaves(
    file: TierFile, branch: Branch, section: str, table: KeyTable, problems: list[Problem]
) -> Iterator[tuple[str, Leaf]]:
    for name, node in branch.items.items():
        path = f"{section}.{name}" if section else name
        origin = in_file(file.path, node.line)
        if path in table.keys:
            if isinstance(node, Leaf):
                yield path, node
            else:
                expected = table.keys[path].expected
                problems.append(Problem(ProblemKind.VALUE, origin, "a section", expected, path))
        elif path in table.sections:
            if isinstance(node, Branch):
                yield from _leaves(file, node, path, table, problems)
            elif node.value is not None:  # a section whose keys are all commented out is null
                problems.append(_no_section(path, node, origin, table))
        else:
            problems.append(_unknown_key(path, section, origin, table))


def _no_section(path: str, leaf: Leaf, origin: Origin, table: KeyTable) -> Problem:
    # Only the type is shown: the value may be a secret in the wrong place.
    found = "a list" if isinstance(leaf.value, list) else "a single value"
    names = ", ".join(child.rpartition(".")[2] for child in table.sections[path])
    return Problem(ProblemKind.VALUE, origin, found, f"a section with {names}", path)


def _unknown_key(path: str, section: str, origin: Origin, table: KeyTable) -> Problem:
    name = path.rpartition(".")[2]
    siblings = {child.rpartition(".")[2]: child for child in table.sections[section]}
    near = [siblings[match] for match in closest(name, tuple(siblings))]
    if not near:  # the right name in the wrong section
        near = [known for known in table.keys if known.rpartition(".")[2] == name]
    hint = did_you_mean(near[:3])
    expected = f"one of {', '.join(siblings)}" + (f" in {section}" if section else "")
    found = "a key that does not exist"
    return Problem(ProblemKind.UNKNOWN_KEY, origin, found, expected, path, hint)


def _unknown_variable(name: str, text: str, table: KeyTable) -> Problem:
    # The value is not shown: the name may be a misspelt password's.
    near = closest(name, (*table.variables, *RESERVED_VARIABLES))
    hint = did_you_mean(near)
    if _is_service_link(name, text) or (not near and _KUBERNETES.fullmatch(name)):
        hint = "Kubernetes sets it for a service; enableServiceLinks: false in the pod stops that"
    return Problem(
        ProblemKind.UNKNOWN_VARIABLE,
        in_variable(name),
        "a variable that sets no key",
        f"{VARIABLE_PREFIX}SECTION_KEY of a known key",
        hint=hint,
    )


def _is_service_link(name: str, text: str) -> bool:
    has_address = text.startswith(("tcp://", "udp://", "sctp://"))
    return has_address and _KUBERNETES.fullmatch(name) is not None


def _has_references(value: Plain) -> bool:
    if isinstance(value, list):
        return any(isinstance(item, str) and has_reference(item) for item in value)
    return isinstance(value, str) and has_reference(value)


def _resolve_entry(key: Key, entry: Entry, environ: Mapping[str, str]) -> Entry:
    if isinstance(entry.value, list):
        single = replace(key, is_list=False)
        values = [
            from_text(single, resolve(item, environ)) if isinstance(item, str) else item
            for item in entry.value
        ]
        return replace(entry, value=values, reference=", ".join(map(str, entry.value)))
    text = resolve(entry.value, environ)
    # An empty fallback that is written out means null, for a secret too.
    is_null = text == "" and key.is_optional and entry.value.endswith(":-}")
    value = None if is_null else from_text(key, text)
    return replace(entry, value=value, reference=entry.value)


def _secret(key: Key, entry: Entry, problems: list[Problem]) -> SecretReference | None:
    expected = "a value of its own: only passwords and keys may stand in a provider of secrets"
    try:
        if key.is_secret:
            return SecretReference(entry.value)
    except SecretReferenceError as exc:
        expected = f"${{secret:PROVIDER/NAME}}; it {exc.message}"
    found = shown(entry.value)
    problems.append(Problem(ProblemKind.REFERENCE, entry.origin, found, expected, key.path))
    return None


def _reference_problem(key: Key, entry: Entry, variable: str) -> Problem:
    found = MASK if key.is_secret else shown(entry.value)
    if not variable:
        expected = "references of the form ${NAME} or ${NAME:-text}, and $${ for a plain ${"
    else:
        found = f"${{{variable}}}, which is not set" if key.is_secret else f"{found}, not set"
        expected = f"the variable {variable} in the environment, or {key.variable}"
    return Problem(ProblemKind.REFERENCE, entry.origin, found, expected, key.path)
