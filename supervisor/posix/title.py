"""The title of a process, as ps and top show it."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
from collections.abc import Callable


def set_title(title: str) -> None:
    """Show what the process is."""
    _function()(title)


@functools.cache
def _function() -> Callable[[str], None]:
    """setproctitle's, without the logging that its package imports for one line of debugging."""
    package = importlib.machinery.PathFinder.find_spec("setproctitle")
    assert package is not None
    places = package.submodule_search_locations
    spec = importlib.machinery.PathFinder.find_spec("_setproctitle", places)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[str], None] = module.setproctitle
    return found
