"""Whether this program runs with its own packages and its own Python.

Other projects also have packages called ``supervisor`` and ``protocol``. Asked for before
anything of them is imported, so that a foreign one ends in a clear sentence.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

PACKAGES = ("protocol", "supervisor", "services")
PYTHON = (3, 11)


class WrongEnvironmentError(Exception):
    """The program was started with a foreign package or another Python; nothing was done.

    No NovacronError, because ``protocol``, where that is, may be the foreign package.

    Attributes:
        code: as every error of the node has one.
        exit_code: of the program.
    """

    code: ClassVar[str] = "node.wrong_environment"
    exit_code: ClassVar[int] = 78
    retryable: ClassVar[bool] = False
    expected: ClassVar[bool] = True

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields


def check_packages() -> None:
    """See that all packages come from this project and that Python has the right version.

    Raises:
        WrongEnvironmentError: says what is foreign and how to start the node instead.
    """
    project = Path(__file__).resolve().parents[2]
    judge(project, {name: _home(name) for name in PACKAGES}, sys.version_info[:2])


def judge(project: Path, homes: Mapping[str, Path | None], python: tuple[int, ...]) -> None:
    """The rule behind check_packages.

    Args:
        project: directory that holds this program's packages.
        homes: the directory that each package comes from; None if it is not found.
        python: major and minor version of the interpreter.

    Raises:
        WrongEnvironmentError: as above.
    """
    for name, home in homes.items():
        if home != project:
            found = f"comes from {home}" if home else "is not found"
            raise WrongEnvironmentError(
                f"the package {name!r} {found}, but this program is in {project}; start it with "
                f"bin/novacron of its own environment, with PYTHONPATH unset",
                package=name,
            )
    if python != PYTHON:
        found, needed = (".".join(map(str, version)) for version in (python, PYTHON))
        raise WrongEnvironmentError(
            f"this is Python {found} ({sys.executable}), the node needs {needed}; start it with "
            f"bin/novacron of its own environment",
            python=found,
        )


def _home(name: str) -> Path | None:
    spec = find_spec(name)
    if spec is None or spec.origin is None:  # a directory without __init__.py has no origin
        return None
    return Path(spec.origin).resolve().parents[1]
