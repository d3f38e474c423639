"""References in the values of files: to environment variables, and to secrets elsewhere.

``${NAME}`` stands for the variable and must be set; ``${NAME:-text}`` falls back to ``text`` where
the variable is unset or empty, as in a shell. ``$${`` writes ``${`` itself. A variable's content
is taken as it is: references in it are not followed, so a password may contain anything.

``${secret:PROVIDER/NAME}`` stands for a secret of a provider. It is the whole value of a key that
holds a secret, and stays a reference (services.config.secret_reference) until the value is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from services.security.secrets.reference import is_reference

_REFERENCE = re.compile(
    r"(?P<escaped>\$\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<bad>\$\{)"
)


class UnresolvedError(ValueError):
    """A reference that can't be resolved.

    Attributes:
        variable: the variable that is not set; empty when the reference is malformed.
    """

    def __init__(self, variable: str) -> None:
        super().__init__(variable)
        self.variable = variable


def is_secret_reference(value: object) -> bool:
    """Tell whether a value is meant to be a reference to a secret, well formed or not."""
    return isinstance(value, str) and is_reference(value)


def has_reference(text: str) -> bool:
    """Tell whether ``resolve`` would do anything to the text."""
    return "${" in text


def resolve(text: str, environ: Mapping[str, str]) -> str:
    """Put the variables' contents in place of the references.

    Raises:
        UnresolvedError: a variable without a fallback is not set, or a reference is malformed.
    """

    def replacement(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "${"
        if match["bad"]:
            raise UnresolvedError("")
        name, default = match["name"], match["default"]
        if default is not None:
            return environ.get(name) or default
        if name not in environ:
            raise UnresolvedError(name)
        return environ[name]

    return _REFERENCE.sub(replacement, text)
