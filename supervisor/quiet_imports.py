"""Import structlog without rich.

Where rich is installed, as it is for our command line, structlog imports it for tracebacks in
colour that nobody here asks for. That is a quarter of the time in which a supervisor starts, and
memory in every process of the tree. Imported first, by the package itself.
"""

from __future__ import annotations

import sys

if "structlog" not in sys.modules and "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]  # import says that there is none
    try:
        import structlog  # noqa: F401 - for what it imports
    finally:
        del sys.modules["rich"]
