"""What can be wrong with a configuration, said so that the operator can repair it at once."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from protocol.errors import NovacronError
from protocol.records import Plain
from services.config.origins import Origin

# What pydantic shows of a SecretStr, so that a secret looks the same everywhere.
MASK = "**********"

# What an error shows of a value; a longer one would hide the rest of the sentence.
_SHOWN_MAX = 60
_SUGGESTIONS_MAX = 3


class ProblemKind(enum.Enum):
    """The stable names of what can be wrong."""

    UNREADABLE = "unreadable"  # directory or file missing, forbidden, too large, wrong encoding
    SYNTAX = "syntax"  # no YAML or JSON, or YAML beyond the plain types
    DUPLICATE = "duplicate"  # a key twice in a section, or two files for one tier
    ENVIRONMENT = "environment"  # no such environment
    UNKNOWN_KEY = "unknown_key"
    UNKNOWN_VARIABLE = "unknown_variable"
    REFERENCE = "reference"  # ${NAME} malformed, or the variable is not set
    VALUE = "value"  # wrong type, range, unit or choice
    CREDENTIAL = "credential"  # a certificate or key that can't be used
    RULE = "rule"  # values that contradict each other, or the host


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: what sort of thing.
        origin: where it was written.
        found: what stands there, with secrets masked.
        expected: what should stand there.
        key: dotted key, where there is one.
        hint: what else helps, such as the closest known keys.
    """

    kind: ProblemKind
    origin: Origin
    found: str
    expected: str
    key: str = ""
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.origin}: {self.key}" if self.key else str(self.origin)
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}: found {self.found}, expected {self.expected}{hint}"

    def plain(self) -> dict[str, Plain]:
        """The problem for a machine: the shape of ``novacron config check --json``."""
        return {
            "kind": self.kind.value,
            "source": self.origin.kind.value,
            "name": self.origin.name,
            "line": self.origin.line,
            "key": self.key or None,
            "found": self.found,
            "expected": self.expected,
            "hint": self.hint or None,
        }


class ConfigError(NovacronError):
    """The configuration can't be used; the operator repairs what ``problems`` lists."""

    code = "config.invalid"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        title = f"the configuration is not valid: {count} problem{'s' * (count != 1)}"
        lines = [title, *(f"  {problem}" for problem in self.problems)]
        super().__init__("\n".join(lines), problems=[problem.plain() for problem in self.problems])


def shown(value: Plain) -> str:
    """A found value for an error's text, bounded in length."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"


def closest(word: str, known: Sequence[str]) -> tuple[str, ...]:
    """The known words that ``word`` was probably meant to be, best first.

    Case, underscores and dashes do not count: ``max_streams`` is close to ``maxStreams``.
    """
    from difflib import get_close_matches  # only on the way to an error

    folded: dict[str, str] = {}
    for candidate in known:
        folded.setdefault(_fold(candidate), candidate)
    matches = get_close_matches(_fold(word), folded, n=_SUGGESTIONS_MAX, cutoff=0.7)
    return tuple(folded[match] for match in matches)


def did_you_mean(candidates: Sequence[str]) -> str:
    """The hint that names likely candidates; empty without any."""
    return f"did you mean {' or '.join(candidates)}?" if candidates else ""


def _fold(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")
