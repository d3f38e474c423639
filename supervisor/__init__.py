"""A tree of supervised processes with the guarantees of an Erlang/OTP supervisor.

    from supervisor import command, run, service

    run([command("web", ["python3", "-m", "http.server"]), service("ticker", "mymodule:Ticker")])

docs/supervisor.md is the manual. What is named here is all that most programs need, and is
imported when it is used; the rest is in the submodules: ``supervisor.core`` decides,
``supervisor.child`` is what runs in a child, ``supervisor.runtime`` runs a supervisor,
``supervisor.testing`` is the test kit. Nothing here knows what the children are for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.child.service import BlockingContext as BlockingContext
    from supervisor.child.service import BlockingService as BlockingService
    from supervisor.child.service import CriticalError as CriticalError
    from supervisor.child.service import Request as Request
    from supervisor.child.service import Service as Service
    from supervisor.child.service import ServiceContext as ServiceContext
    from supervisor.client import connect as connect
    from supervisor.core.readiness import Readiness as Readiness
    from supervisor.core.resources import Resources as Resources
    from supervisor.core.spec import Backoff as Backoff
    from supervisor.core.spec import Liveness as Liveness
    from supervisor.core.spec import SpecError as SpecError
    from supervisor.specs import command as command
    from supervisor.specs import loop as loop
    from supervisor.specs import service as service
    from supervisor.specs import subtree as subtree
    from supervisor.standalone import run as run

_HOMES = {
    "Backoff": "supervisor.core.spec",
    "BlockingContext": "supervisor.child.service",
    "BlockingService": "supervisor.child.service",
    "CriticalError": "supervisor.child.service",
    "Liveness": "supervisor.core.spec",
    "Readiness": "supervisor.core.readiness",
    "Request": "supervisor.child.service",
    "Resources": "supervisor.core.resources",
    "Service": "supervisor.child.service",
    "ServiceContext": "supervisor.child.service",
    "SpecError": "supervisor.core.spec",
    "command": "supervisor.specs",
    "connect": "supervisor.client",
    "loop": "supervisor.specs",
    "run": "supervisor.standalone",
    "service": "supervisor.specs",
    "subtree": "supervisor.specs",
}


def __getattr__(name: str) -> object:
    """Import what is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """What can be imported from here."""
    return sorted(_HOMES)
