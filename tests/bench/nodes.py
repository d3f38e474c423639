"""Real nodes for benchmarks, each in a directory of its own that is gone afterwards."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import MeasurementError
from tests.fixtures.fix_node import Node


@contextlib.contextmanager
def fresh_node() -> Iterator[Node]:
    """A node that was never started; ended and removed afterwards."""
    # The embedded servers run as another account and must get there.
    directory = Path(tempfile.mkdtemp(prefix="novacron-bench-", dir="/tmp"))
    directory.chmod(0o755)
    node = Node(directory)
    try:
        yield node
    finally:
        node.close()
        shutil.rmtree(directory)


def start(node: Node) -> Node:
    """Start a node and wait until it is ready.

    Raises:
        MeasurementError: it did not come up.
    """
    try:
        return node.start()
    except AssertionError as exc:
        raise MeasurementError(f"the node did not come up: {exc}") from exc
