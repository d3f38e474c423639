"""What a service imports, the launcher imports before it: a start that reads files is slow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
# Those that come up without a server beside them.
SERVICES = ("telemetry", "core/network", "core/vm", "core/dwcp/manager", "api", "optional/workload")
PROGRAM = """
import asyncio, importlib, json, sys
from services.node import prepare, start
from services.node.prepared import RunOptions
from supervisor.child.asyncio_runtime import run_service
from supervisor.testing.context import MemoryServiceContext

path, state = sys.argv[1:]
spec = prepare.prepare(RunOptions(environment="embedded", state_dir=state)).spec
for name in path.split("/"):
    found = next(child for child in spec.children if child.id == name)
    spec = found.children
for module in (*start.PRELOAD, *found.preload):
    importlib.import_module(module)
ports = {key: 0 for key in found.settings if key.endswith("port")}
module, _, name = found.start.partition(":")

async def main():
    service = getattr(sys.modules[module], name)()
    before = set(sys.modules)
    await service.init(MemoryServiceContext(path=path, settings={**found.settings, **ports}))
    imported = sorted(set(sys.modules) - before)
    await service.terminate()
    return imported

print(json.dumps(asyncio.run(main())))
"""


@pytest.mark.parametrize("path", SERVICES)
def test_coming_up_imports_nothing(path: str, tmp_path: Path) -> None:
    """After the modules that the launcher imports, a service's start needs no other."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path, str(tmp_path)],
        cwd=ROOT,
        env={"NOVACRON_NETWORK_BRIDGE_ENABLED": "false"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
