"""The house rules that a program can check."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
PACKAGES = ("protocol", "supervisor", "services")
# Names that another project's package of the same name has below supervisor/.
FOREIGN_NAMES = {
    "childutils",
    "compat",
    "datatypes",
    "dispatchers",
    "events",
    "http",
    "loggers",
    "options",
    "poller",
    "process",
    "rpcinterface",
    "socket_manager",
    "states",
    "templating",
    "web",
    "xmlrpc",
}


def tracked(*patterns: str) -> list[Path]:
    """Files that belong to the project."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:  # an unpacked archive has no git
        return [path for pattern in patterns for path in ROOT.rglob(pattern)]
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_files_and_functions_are_short() -> None:
    """A file is one idea, and a function fits on a screen."""
    long = []
    for path in tracked("*.py"):
        text = path.read_text()
        if (count := len(text.splitlines())) > FILE_LINES_MAX and "tests" not in path.parts:
            long.append(f"{path.relative_to(ROOT)}: {count} lines")
        for function in functions(ast.parse(text)):
            length = (function.end_lineno or 0) - function.lineno + 1
            if length > FUNCTION_LINES_MAX:
                long.append(f"{path.relative_to(ROOT)}:{function.name}: {length} lines")
    assert long == []


def test_every_test_says_what_it_proves() -> None:
    """A test's docstring is its claim."""
    silent = [
        f"{path.relative_to(ROOT)}:{function.name}"
        for path in tracked("tests/*.py")
        for function in functions(ast.parse(path.read_text()))
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]
    assert silent == []


@pytest.mark.parametrize(
    "banned", ["preexec_fn", "shell=True", "os.system(", "pickle.loads", ".executemany("]
)
def test_dangerous_calls_are_not_made(banned: str) -> None:
    """What forks with threads, starts shells, runs what arrives, or hangs when it is cancelled."""
    found = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if banned in path.read_text()
    ]
    assert found == []


def test_nothing_below_supervisor_has_a_foreign_name() -> None:
    """A module of another package called supervisor must never be taken for ours."""
    ours = {path.stem for path in (ROOT / "supervisor").iterdir()}

    assert ours & FOREIGN_NAMES == set()


def test_every_package_has_its_own_first_line() -> None:
    """Each module's docstring says in one line what it is."""
    silent = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_documents_link_to_files_that_exist() -> None:
    """A renamed file takes its links along."""
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in tracked("*.md")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
        if not (path.parent / target).exists()
    ]
    assert broken == []
