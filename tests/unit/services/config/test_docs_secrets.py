"""The examples of docs/secrets.md are configurations that are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.security.secrets.reference import PROVIDERS

DOCUMENT = (Path(__file__).parents[4] / "docs" / "secrets.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


def test_there_is_an_example_of_each_provider() -> None:
    """Nobody has to guess how a reference to a provider looks."""
    named = set(re.findall(r"\$\{secret:([a-z-]+)/", "".join(EXAMPLES)))

    assert named == set(PROVIDERS)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_valid(directory, example: str) -> None:
    """Each one loads as it stands."""
    directory.write(lab=example)

    assert directory.load().config is not None
