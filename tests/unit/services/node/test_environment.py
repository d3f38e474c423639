"""The check that the node's own packages and Python are in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.node.environment import PACKAGES, WrongEnvironmentError, check_packages, judge

PROJECT = Path("/opt/novacron")
OWN: dict[str, Path | None] = dict.fromkeys(PACKAGES, PROJECT)


def test_this_project_passes() -> None:
    """The packages that the tests run with all come from one project."""
    check_packages()


def test_own_packages_pass() -> None:
    """All from one directory and Python 3.11 is right."""
    judge(PROJECT, OWN, (3, 11))


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("home", [Path("/usr/lib/python3/dist-packages"), None])
def test_a_foreign_or_missing_package_is_refused(name: str, home: Path | None) -> None:
    """The error names the package and what comes of it, and has the exit code of its own."""
    with pytest.raises(WrongEnvironmentError, match=f"package '{name}'") as caught:
        judge(PROJECT, {**OWN, name: home}, (3, 11))

    assert caught.value.exit_code == 78
    assert caught.value.code == "node.wrong_environment"
    assert str(home or "is not found") in str(caught.value)


@pytest.mark.parametrize("python", [(3, 10), (3, 12), (4, 11)])
def test_another_python_is_refused(python: tuple[int, int]) -> None:
    """Older and newer Pythons than 3.11 are named with their version."""
    with pytest.raises(WrongEnvironmentError, match=f"Python {python[0]}.{python[1]} "):
        judge(PROJECT, OWN, python)
