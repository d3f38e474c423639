"""From a policy file to a compiled policy, with every mistake named by its line.

    version: 1
    roles:
      operator: {users: [anna], groups: ["@node"]}
    rules:
      commands:
        callers: [role:operator]
        calls: [start, stop, restart]
        of: [novacron, core]
        audit: true

``@node`` is the account that the node runs as, or the group ``system.group``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from protocol import names
from protocol.records import Plain
from services.config.document import Branch, DocumentError, Leaf, parse_yaml
from services.config.errors import ConfigError, Problem, ProblemKind, closest, did_you_mean, shown
from services.config.origins import in_file
from supervisor.guard.policy import PERSON, ROLE, ROLES, Policy, Role, Rule

VERSION = 1
# The shipped file has 5 KiB; one of this size would not be read by anybody.
FILE_BYTES_MAX = 256 << 10
RULES_MAX = 500
PATTERNS_MAX = 200
NODE = "@node"

_RULE_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_PROCESS = re.compile(r"[a-z0-9./*-]{1,200}")
_METHOD = re.compile(r"[A-Za-z0-9_.*-]{1,128}")
_PERSON = re.compile(r"[A-Za-z0-9_.@$*-]{1,64}")
_RULE_KEYS = ("callers", "calls", "of", "audit")
_ROLE_KEYS = ("users", "groups")


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The accounts of a host, as far as a policy asks.

    Attributes:
        uid_of, gid_of: number of a user or group by name; None where there is none.
        node_uid, node_gid: what ``@node`` stands for.
    """

    uid_of: Callable[[str], int | None]
    gid_of: Callable[[str], int | None]
    node_uid: int
    node_gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A policy file that was understood.

    Attributes:
        policy: compiled.
        notes: what is no mistake and yet worth a look, such as an unknown account.
        lines: of the rules, by name.
    """

    policy: Policy
    notes: tuple[str, ...] = ()
    lines: Mapping[str, int] = field(default_factory=dict)


def read(file: Path, accounts: Accounts) -> Source:
    """Read and compile a policy file.

    Raises:
        ConfigError: it can't be read or used; every problem with its line.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(FILE_BYTES_MAX + 1)
    except OSError as exc:
        found = exc.strerror or "unreadable"
        raise _error(file, None, found, "a readable policy file", ProblemKind.UNREADABLE) from exc
    if len(data) > FILE_BYTES_MAX:
        expected = f"at most {FILE_BYTES_MAX} bytes"
        raise _error(file, None, "a larger file", expected, ProblemKind.UNREADABLE)
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise _error(file, None, "no UTF-8", "UTF-8 text", ProblemKind.UNREADABLE) from exc
    return compile_text(text, file, accounts)


def compile_text(text: str, file: Path, accounts: Accounts) -> Source:
    """Compile a policy.

    Args:
        text: YAML.
        file: what problems name.
        accounts: of the host.

    Raises:
        ConfigError: it can't be used.
    """
    try:
        document = parse_yaml(text)
    except DocumentError as exc:
        kind = ProblemKind.DUPLICATE if exc.is_duplicate else ProblemKind.SYNTAX
        raise _error(file, exc.line, exc.found, exc.expected, kind) from exc
    return _Compiler(file, accounts).compile(document)


class _Compiler:
    """Goes through a document and gathers what is wrong with it."""

    def __init__(self, file: Path, accounts: Accounts) -> None:
        self._file = file
        self._accounts = accounts
        self._problems: list[Problem] = []
        self._notes: list[str] = []

    def compile(self, document: Branch) -> Source:
        self._known_keys(document, ("version", "roles", "rules"), "")
        version = document.items.get("version")
        if not isinstance(version, Leaf) or version.value != VERSION:
            line = document.line if version is None else version.line
            self._problem(line, "version", _shown(version), f"{VERSION}")
        roles = self._section(document, "roles")
        for name, node in roles.items():
            if name not in ROLES:
                self._problem(node.line, f"roles.{name}", "this role", f"one of {', '.join(ROLES)}")
        compiled_roles = tuple(self._role(name, roles.get(name)) for name in ROLES)
        rules = self._section(document, "rules")
        if len(rules) > RULES_MAX:
            self._problem(document.line, "rules", f"{len(rules)} rules", f"at most {RULES_MAX}")
        compiled = tuple(self._rule(name, node) for name, node in rules.items())
        if self._problems:
            raise ConfigError(self._problems)
        return Source(
            policy=Policy(rules=compiled, roles=compiled_roles),
            notes=tuple(self._notes),
            lines={name: node.line for name, node in rules.items()},
        )

    def _section(self, document: Branch, key: str) -> dict[str, Leaf | Branch]:
        node = document.items.get(key)
        if isinstance(node, Branch):
            return node.items
        line = document.line if node is None else node.line
        self._problem(line, key, _shown(node), "a section")
        return {}

    def _role(self, name: str, node: Leaf | Branch | None) -> Role:
        if node is None:
            return Role(name=name)
        where = f"roles.{name}"
        if not isinstance(node, Branch):
            self._problem(node.line, where, _shown(node), "users and groups")
            return Role(name=name)
        self._known_keys(node, _ROLE_KEYS, where)
        accounts = self._accounts
        uids = self._ids(node, "users", where, accounts.uid_of, accounts.node_uid)
        gids = self._ids(node, "groups", where, accounts.gid_of, accounts.node_gid)
        return Role(name=name, uids=uids, gids=gids)

    def _ids(
        self,
        node: Branch,
        key: str,
        where: str,
        id_of: Callable[[str], int | None],
        node_id: int,
    ) -> tuple[int, ...]:
        found = []
        for text in self._texts(node, key, where, _PERSON):
            number = node_id if text == NODE else id_of(text)
            if number is None:
                self._notes.append(f"{self._file}: {where}.{key}: this host has no {text}")
            else:
                found.append(number)
        return tuple(found)

    def _rule(self, name: str, node: Leaf | Branch) -> Rule:
        where = f"rules.{name}"
        nothing = Rule(name=name, callers=(), calls=(), of=())
        if not _RULE_NAME.fullmatch(name):
            self._problem(node.line, where, "this name", "small letters, digits and dashes")
        if not isinstance(node, Branch):
            self._problem(node.line, where, _shown(node), "callers, calls and of")
            return nothing
        self._known_keys(node, _RULE_KEYS, where)
        for key in ("callers", "calls", "of"):
            if key not in node.items:
                self._problem(node.line, f"{where}.{key}", "nothing", "a list of patterns")
        callers = self._texts(node, "callers", where, None)
        for text in callers:
            self._check_caller(node.line, f"{where}.callers", text)
        audit = node.items.get("audit", Leaf(False, node.line))  # noqa: FBT003 - the default
        if not isinstance(audit, Leaf) or not isinstance(audit.value, bool):
            self._problem(audit.line, f"{where}.audit", _shown(audit), "true or false")
            return nothing
        return Rule(
            name=name,
            callers=callers,
            calls=self._texts(node, "calls", where, _METHOD),
            of=self._texts(node, "of", where, _PROCESS),
            audit=audit.value,
        )

    def _check_caller(self, line: int, where: str, text: str) -> None:
        if text.startswith(ROLE):
            if text[len(ROLE) :] not in ROLES:
                self._problem(line, where, shown(text), f"role:{' or role:'.join(ROLES)}")
        elif text.startswith(PERSON):
            if not _PERSON.fullmatch(text[len(PERSON) :]):
                self._problem(line, where, shown(text), "person: and a user name")
        elif names.is_person(text):
            self._problem(line, where, shown(text), f"{PERSON}{text.partition('/')[2] or '*'}")
        elif not _PROCESS.fullmatch(text):
            self._problem(line, where, shown(text), "a process path, person:… or role:…")

    def _texts(
        self, node: Branch, key: str, where: str, pattern: re.Pattern[str] | None
    ) -> tuple[str, ...]:
        leaf = node.items.get(key)
        if leaf is None:
            return ()
        values = leaf.value if isinstance(leaf, Leaf) else None
        if not isinstance(values, list) or len(values) > PATTERNS_MAX:
            self._problem(leaf.line, f"{where}.{key}", _shown(leaf), "a list of texts")
            return ()
        for value in values:
            if not isinstance(value, str) or (pattern and not pattern.fullmatch(value)):
                self._problem(leaf.line, f"{where}.{key}", shown(value), "a name or pattern with *")
        return tuple(value for value in values if isinstance(value, str))

    def _known_keys(self, node: Branch, known: tuple[str, ...], where: str) -> None:
        for key, found in node.items.items():
            if key not in known:
                dotted = f"{where}.{key}" if where else key
                hint = did_you_mean(closest(key, known))
                self._problem(found.line, dotted, "this key", f"one of {', '.join(known)}", hint)

    def _problem(self, line: int, key: str, found: str, expected: str, hint: str = "") -> None:
        origin = in_file(self._file, line)
        self._problems.append(Problem(ProblemKind.VALUE, origin, found, expected, key, hint))


def _shown(node: Leaf | Branch | None) -> str:
    if node is None:
        return "nothing"
    value: Plain = "a section" if isinstance(node, Branch) else shown(node.value)
    return str(value)


def _error(
    file: Path, line: int | None, found: str, expected: str, kind: ProblemKind
) -> ConfigError:
    return ConfigError([Problem(kind, in_file(file, line), found, expected)])
