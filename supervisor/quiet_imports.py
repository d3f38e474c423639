"""Import structlog without what it imports on suspicion.

structlog imports rich, where it is installed as for our command line, to colour tracebacks that
nobody here asks for, and asyncio, with all of TLS, for loggers that few use. Together that takes
longer than the rest of it. Whoever imports it from here gets it without.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


class _Later(ModuleType):
    """Stands for a module until something of it is used."""

    def __getattr__(self, name: str) -> object:
        return getattr(importlib.import_module(self.__name__), name)


def _import_quietly() -> None:
    stand_ins = {"asyncio": _Later("asyncio"), "rich": None}  # None: import says there is none
    hidden = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None is meant for this
    try:
        importlib.import_module("structlog")
    finally:
        for name in hidden:
            del sys.modules[name]


if "structlog" not in sys.modules:
    _import_quietly()

import structlog as structlog  # noqa: E402 - after all that
