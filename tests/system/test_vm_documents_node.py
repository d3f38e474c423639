"""novacronctl vm against a real node on libvirt's test driver."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.fix_node import ROOT, Node

pytestmark = [
    pytest.mark.process,
    pytest.mark.postgres,
    pytest.mark.redis,
    pytest.mark.libvirt,
]
EXAMPLE = ROOT / "docs/examples/vm.yaml"


def said(node: Node, *arguments: str) -> str:
    """What a command that succeeds prints."""
    done = node.ctl("vm", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_an_operator_brings_a_document_to_life(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    """The example of the documentation, from the plan to its end, and mistakes on the way."""
    node = make_node().start()
    plan = said(node, "plan", str(EXAMPLE))
    assert plan.splitlines()[0].startswith("define        web-1: ")
    assert "steps to take" in plan
    assert "web-1" not in said(node, "list")

    applied = said(node, "apply", str(EXAMPLE))
    assert "done" in applied
    listed = next(line for line in said(node, "list").splitlines() if line.startswith("web-1"))
    assert listed.split()[:2] == ["web-1", "running"]
    assert "version 1" in listed
    assert said(node, "apply", "--all") == "nothing was to be done\n"

    document = tmp_path / "again.yaml"
    document.write_text(said(node, "show", "--document", "web-1"))
    assert said(node, "plan", str(document)) == "nothing is to be done\n"
    document.write_text(document.read_text().replace("title: ", "title: New "))
    shown = said(node, "apply", "--dry-run", str(document))
    assert "title: " in shown
    stale = node.ctl("vm", "apply", "--expect", "web-1=7", str(document))
    assert stale.returncode == 1
    assert "version 1 and not 7" in stale.stderr
    view = json.loads(said(node, "show", "--json", "web-1"))
    assert view["stored"]["version"] == 1
    assert view["is_ours"]

    document.write_text("name: web-1\ndisks:\n- {path: /etc/shadow}\n")
    refused = node.ctl("vm", "apply", str(document))
    assert refused.returncode == 2
    assert "disks[0].path" in refused.stderr
    document.write_text("name: web-1\nmemmory: {}\n")
    refused = node.ctl("vm", "plan", str(document))
    assert refused.returncode == 2
    assert "line 2: has an unknown field 'memmory'" in refused.stderr
    assert node.ctl("vm", "apply").returncode == 2

    running = node.ctl("vm", "undefine", "web-1")
    assert running.returncode == 1
    assert "stop it before" in running.stderr
    assert "somebody else's" in said(node, "adopt", "--dry-run", "test")
    assert "done" in said(node, "adopt", "test")
    assert "ours" in said(node, "show", "test")
    assert node.ctl("vm", "show", "nobody").returncode == 1
    said(node, "stop", "--force", "web-1")
    assert "its disks stay" in said(node, "undefine", "web-1")
    assert "web-1" not in said(node, "list")
