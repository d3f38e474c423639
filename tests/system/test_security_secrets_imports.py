"""The libraries of remote providers, and of certificates, are not in an ordinary node."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fixtures.fix_node import ROOT

pytestmark = pytest.mark.process
HEAVY = ("hvac", "botocore", "azure", "requests", "msal", "cryptography.x509")
PROGRAM = """
import importlib, json, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
print(json.dumps(sorted(name for name in json.loads(sys.argv[1]) if name in sys.modules)))
"""


@pytest.mark.parametrize(
    "modules",
    [
        ("services.security.service",),
        ("services.node.prepare",),
        ("services.node.start",),
        ("services.ctl.commands.secrets", "services.ctl.commands.credentials"),
    ],
)
def test_nothing_heavy_is_loaded(modules: tuple[str, ...]) -> None:
    """Neither the security process, nor the root, its reader or the client loads any of them."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(HEAVY), *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert json.loads(done.stdout) == []
