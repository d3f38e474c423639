"""References to variables."""

from __future__ import annotations

import pytest

from services.config.references import UnresolvedError, has_reference, resolve

ENVIRON = {"NAME": "value", "EMPTY": "", "NESTED": "${NAME}"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("${NAME}", "value"),
        ("a-${NAME}-${NAME}", "a-value-value"),
        ("${EMPTY}", ""),
        ("${EMPTY:-other}", "other"),
        ("${GONE:-other}", "other"),
        ("${GONE:-}", ""),
        ("${NAME:-other}", "value"),
        ("${GONE:-a:b-c}", "a:b-c"),
        ("$${NAME}", "${NAME}"),
        ("$NAME $ {NAME} pa$$word", "$NAME $ {NAME} pa$$word"),
        ("${NESTED}", "${NAME}"),
    ],
)
def test_references_are_replaced(text: str, result: str) -> None:
    """Variables, fallbacks and the escape do what a shell does; contents are not followed."""
    assert resolve(text, ENVIRON) == result


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("${GONE}", "GONE"),
        ("x${GONE}y${NAME}", "GONE"),
        ("${", ""),
        ("${}", ""),
        ("${NAME", ""),
        ("${1NAME}", ""),
        ("${NA ME}", ""),
        ("${NAME:?message}", ""),
        ("${NAME-x}", ""),
    ],
)
def test_what_cannot_be_resolved_names_the_variable(text: str, variable: str) -> None:
    """A missing variable is named; a malformed reference is not taken for text."""
    with pytest.raises(UnresolvedError) as caught:
        resolve(text, ENVIRON)

    assert caught.value.variable == variable


def test_only_a_brace_makes_a_reference() -> None:
    """A dollar sign alone means nothing."""
    assert has_reference("a${B}")
    assert not has_reference("$B and $$")
