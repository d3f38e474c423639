"""Keys that run out under a running tree: nobody notices."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.errors import NovacronError
from supervisor.client import Client
from tests.fixtures.fix_node import wait_until
from tests.process.renewal_tree import LIFE_S

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("no_process_left")]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Client]]:
    """A tree whose components are all up, and a client that is as old as it."""
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-m", "tests.process.renewal_tree", str(tmp_path)]
    with subprocess.Popen(command) as process:

        def connect() -> Client | None:
            with contextlib.suppress(NovacronError):
                client = Client(tmp_path / "run")
                with contextlib.suppress(NovacronError):
                    if client.call("asker", "tally")["asked"]:
                        return client
                client.close()
            return None

        client = wait_until(connect, "the tree")
        yield process, client
        client.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


def test_calls_and_orders_outlive_keys(tree: tuple[subprocess.Popen[bytes], Client]) -> None:
    """Over several lives of keys no call fails, and words and orders still arrive."""
    _process, client = tree

    time.sleep(3 * LIFE_S)
    tally = client.call("asker", "tally")
    for path in ("answer", "loop", "below/deep"):
        client.call(path, "ail", f"{path} ails")
    for path in ("answer", "loop", "below/deep"):
        wait_until(lambda path=path: _reason(client, path) == f"{path} ails", f"word of {path}")
    pids = {c.path: c.pid for c in client.status().components}
    client.restart("below/deep", timeout_s=10.0)
    client.restart("loop", timeout_s=10.0)

    assert tally["errors"] == []
    assert tally["asked"] > 100
    after = {c.path: c.pid for c in client.status().components}
    assert {path for path in pids if pids[path] != after[path]} == {"below/deep", "loop"}


def _reason(client: Client, path: str) -> str:
    return next(c.reason for c in client.status().components if c.path == path)
