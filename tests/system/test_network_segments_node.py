"""novacronctl net segments against a real node in a network namespace of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.fix_node import ROOT, Node, wait_until

pytestmark = [
    pytest.mark.process,
    pytest.mark.postgres,
    pytest.mark.redis,
    pytest.mark.libvirt,
    pytest.mark.netns,
]
EXAMPLE = ROOT / "docs/examples/segments.yaml"
# The loopback of a new namespace is down.
NAMESPACE = ("unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")


def nft(node: Node, *arguments: str) -> str:
    """Run nft where the node is."""
    done = subprocess.run(
        ["nsenter", "-t", str(node.pid), "-n", "nft", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.stdout


def said(node: Node, *arguments: str) -> str:
    """What a command that succeeds prints."""
    done = node.ctl("net", "segments", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.fixture
def isolated(make_node: Callable[..., Node]) -> Node:
    """A node that is ready, alone on its network."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("network namespaces need root and unshare")
    return make_node().start(prefix=NAMESPACE)


def test_an_operator_plans_applies_shows_and_traces(isolated: Node, tmp_path: Path) -> None:
    """The example of the documentation, a change of it, and what a mistake is answered with."""
    plan = said(isolated, "plan", str(EXAMPLE))
    assert "+ interface vnet0\n" in plan
    assert "+ in tcp 80,443 from any (customers)" in plan
    assert "vnet0: the host has no such link now" in plan
    assert nft(isolated, "list", "tables") == ""

    assert "in force: revision 1" in said(isolated, "apply", str(EXAMPLE))
    assert "table bridge novacron-segments" in nft(isolated, "list", "tables")
    assert "in force; revision 1, 2 interfaces, 5 rules" in said(isolated, "show")
    assert "nothing differs" in said(isolated, "plan", str(EXAMPLE))

    passes = said(isolated, "trace", "vnet0", "vnet1", "--port", "8080")
    assert passes.splitlines()[-1].startswith("accepted")
    dropped = said(isolated, "trace", "vnet1", "vnet0", "--port", "443")
    assert dropped.splitlines()[-1] == "dropped: not allowed out"
    assert "no rule of the sender allows it" in dropped
    forged = json.loads(said(isolated, "trace", "vnet1", "host", "--from", "10.20.0.99",
                             "--to", "10.20.0.1", "--json"))  # fmt: skip
    assert forged["accepted"] is False
    assert forged["steps"][-2]["comment"] == "not its address"

    bad = tmp_path / "bad.yaml"
    bad.write_text(EXAMPLE.read_text().replace("label:web", "label:wbe"))
    refused = isolated.ctl("net", "segments", "apply", str(bad))
    assert refused.returncode == 2
    assert "names the label wbe, which nobody carries; did you mean web?" in refused.stderr
    shown = json.loads(said(isolated, "show", "--json"))
    assert shown["status"]["revision"] == 1
    names = [record["name"] for record in isolated.journal()]
    assert "segments:applied" in names


def test_segments_outlive_a_killed_service_and_a_stopped_node(
    isolated: Node, tmp_path: Path
) -> None:
    """Kill -9 of core/network leaves the rules in force; what is removed comes back at a start."""
    said(isolated, "apply", str(EXAMPLE))
    before = isolated.component("core/network")
    assert before.pid is not None

    os.kill(before.pid, signal.SIGKILL)
    assert "table bridge novacron-segments" in nft(isolated, "list", "tables")
    wait_until(lambda: isolated.component("core/network").restarts > before.restarts, "restart")
    isolated.wait_state("core/network", "healthy")
    assert "in force; revision 1" in said(isolated, "show")

    nft(isolated, "delete", "table", "bridge", "novacron-segments")
    isolated.wait_state("core/network", "degraded")
    assert "removed" in said(isolated, "show")
    said(isolated, "apply")
    isolated.wait_state("core/network", "healthy")
    assert "table bridge novacron-segments" in nft(isolated, "list", "tables")
