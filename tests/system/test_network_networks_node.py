"""novacronctl net against a real node in a network namespace of its own."""

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
EXAMPLE = ROOT / "docs/examples/networks.yaml"
# What the example speaks of, in a namespace of the node's own.
NAMESPACE = (
    "unshare",
    "-n",
    "sh",
    "-c",
    (
        "ip link set lo up && ip link add eth0 type veth peer name far0"
        " && ip addr add 192.0.2.10/24 dev eth0 && ip link set eth0 up"
        ' && ip link add eth1 type veth peer name far1; exec "$@"'
    ),
    "sh",
)


def ip(node: Node, *arguments: str) -> str:
    """Run ip where the node is."""
    done = subprocess.run(
        ["nsenter", "-t", str(node.pid), "-n", "ip", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.stdout


def said(node: Node, *arguments: str) -> str:
    """What a command that succeeds prints."""
    done = node.ctl("net", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.fixture
def isolated(make_node: Callable[..., Node]) -> Node:
    """A node that is ready, alone on its network."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("network namespaces need root and unshare")
    return make_node().start(prefix=NAMESPACE)


def test_an_operator_plans_applies_shows_and_takes_away(isolated: Node, tmp_path: Path) -> None:
    """The example of the documentation, a kill, drift, a conflict, a mistake, and nothing."""
    plan = said(isolated, "plan", str(EXAMPLE))
    assert "+ bridge br-guests  (guests)\n" in plan
    assert "+ VXLAN vx4020: VNI 4020, 192.0.2.10 port 4789  (tenants)\n" in plan
    assert "br-guests" not in ip(isolated, "link")

    assert "in force: revision 1" in said(isolated, "apply", str(EXAMPLE))
    assert "10.20.0.1/24" in ip(isolated, "addr", "show", "br-guests")
    assert "master br-house" in ip(isolated, "link", "show", "eth1")
    shown = said(isolated, "show")
    assert shown.startswith("in force; revision 1, 3 networks, drift: repair\n")
    assert "nothing is to be done" in said(isolated, "plan", str(EXAMPLE))
    assert "nothing is to be done" in said(isolated, "plan")
    document = tmp_path / "again.yaml"
    document.write_text(said(isolated, "show", "--document"))
    assert "nothing is to be done" in said(isolated, "plan", str(document))

    before = isolated.component("core/network")
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: isolated.component("core/network").restarts > before.restarts, "restart")
    isolated.wait_state("core/network", "healthy")
    assert "in force; revision 1" in said(isolated, "show")

    ip(isolated, "link", "del", "br-house")
    wait_until(lambda: "master br-house" in ip(isolated, "link", "show", "eth1"), "repair")

    ip(isolated, "link", "add", "theirs0", "type", "bridge")
    document.write_text(EXAMPLE.read_text().replace("br-tenants", "theirs0"))
    refused = isolated.ctl("net", "plan", str(document))
    assert refused.returncode == 1
    assert "theirs0 is a bridge link that carries no mark" in refused.stdout
    refused = isolated.ctl("net", "apply", str(document))
    assert refused.returncode == 1
    assert "choose another name, or remove it" in refused.stderr
    document.write_text(EXAMPLE.read_text().replace("{vni", "{vid: 1, vni"))
    refused = isolated.ctl("net", "apply", str(document))
    assert refused.returncode == 2
    assert "line 26: networks[2].vxlans[0] has an unknown field 'vid'" in refused.stderr

    document.write_text("networks: []")
    said(isolated, "apply", str(document))
    assert "novacron:" not in ip(isolated, "link", "show", "type", "vxlan")
    assert "master" not in ip(isolated, "link", "show", "eth1")
    assert json.loads(said(isolated, "show", "--json"))["status"]["revision"] == 2
    names = [record["name"] for record in isolated.journal()]
    assert {"networks:applied", "networks:repaired", "networks:refused"} <= set(names)
