"""Import structlog without what it imports on suspicion.

structlog imports rich, where it is installed as for our command line, to colour tracebacks that
nobody here asks for, and asyncio, with all of TLS, for loggers that few use. Together that is a
third of the time in which a supervisor starts, and a third of its memory. Imported first, by the
package itself.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


class _Later(ModuleType):
    """Stands for a module until something of it is used."""

    def __getattr__(self, name: str) -> object:
        return getattr(importlib.import_module(self.__name__), name)


def _import_structlog() -> None:
    stand_ins = {"asyncio": _Later("asyncio"), "rich": None}  # None: import says there is none
    hidden = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None is meant for this
    try:
        importlib.import_module("structlog")
    finally:
        for name in hidden:
            del sys.modules[name]


if "structlog" not in sys.modules:
    _import_structlog()
