"""A node that serves a network: processes in its tree, their ends, and what outlives what."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.messages.status import ComponentStatus
from protocol.names import run_dir
from tests.fixtures.fix_node import Node, alive, wait_until

pytestmark = [
    pytest.mark.process,
    pytest.mark.postgres,
    pytest.mark.redis,
    pytest.mark.libvirt,
    pytest.mark.netns,
    pytest.mark.xdist_group("serving_node"),
]
# The loopback of a new namespace is down.
NAMESPACE = ("unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")
DNSMASQ = "core/dnsmasq-lan"
WAIT_S = 30.0
NETWORK: dict[str, Any] = {
    "name": "lan",
    "bridge": "br-lan",
    "subnets": [
        {
            "gateway": "10.20.0.1/24",
            "mode": "nat",
            "dhcp": {"first": "10.20.0.100", "last": "10.20.0.199"},
            "dns": {"domain": "lan.example", "upstreams": ["192.0.2.53"]},
        }
    ],
}


@pytest.fixture(scope="module")
def isolated(used_state: Path) -> Iterator[Node]:
    """A node that is ready, alone on its network; the tests take turns with it."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("network namespaces need root and unshare")
    directory = Path(tempfile.mkdtemp(prefix="novacron-test-", dir="/tmp"))
    directory.chmod(0o755)
    subprocess.run(["cp", "--archive", str(used_state), str(directory / "state")], check=True)
    node = Node(directory)
    try:
        yield node.start(prefix=NAMESPACE)
    finally:
        known = node.processes()
        node.close()
        wait_until(lambda: not alive(known) or None, f"left behind: {alive(known)}", WAIT_S)
        shutil.rmtree(run_dir(node.state_dir), ignore_errors=True)
        shutil.rmtree(directory)


def apply(node: Node, *networks: dict[str, Any], drift: str = "repair") -> None:
    """Put networks in force, with nothing to check afterwards."""
    document = {"drift": drift, "networks": list(networks)}
    node.call("core/network", "networks.apply", {"document": document}, timeout_s=WAIT_S)


def inside(node: Node, *command: str) -> str:
    """Run a program where the node's network is."""
    done = subprocess.run(
        ["nsenter", "-t", str(node.pid), "-n", *command],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.stdout


def listens(node: Node) -> bool:
    """Tell whether somebody answers names on the bridge's address."""
    return "10.20.0.1:53" in inside(node, "ss", "-lun")


def served(node: Node, *, other_than: int | None = None) -> ComponentStatus:
    """Wait until dnsmasq is up in the tree."""

    def found() -> ComponentStatus | None:
        for component in node.status().components:
            if component.path == DNSMASQ and component.state.value == "healthy":
                return component if component.pid != other_than else None
        return None

    result: ComponentStatus = wait_until(found, f"{DNSMASQ} healthy", WAIT_S)
    return result


def boot_again(node: Node) -> None:
    """Start a node that was killed; PostgreSQL may not yet be rid of what it had."""
    for _ in range(3):
        node.start(wait=False, prefix=NAMESPACE)
        with contextlib.suppress(AssertionError):
            return node.wait_ready()
    return node.wait_ready()


def is_listed(node: Node) -> bool:
    """Tell whether the tree has a dnsmasq."""
    return any(component.path == DNSMASQ for component in node.status().components)


def test_a_dnsmasq_comes_with_its_network_and_goes_with_it(isolated: Node) -> None:
    """It is a component of the tree, which a node without networks does not have."""
    assert not is_listed(isolated)
    told = isolated.ctl("net", "leases")
    assert (told.stdout.strip(), told.stderr) == ("no address is given out", "")

    apply(isolated, NETWORK)
    found = served(isolated)
    assert listens(isolated)
    assert found.failure == "degraded"
    assert isolated.component("core/network").state.value == "healthy"
    assert "table inet novacron-networks" in inside(isolated, "nft", "list", "tables")
    unknown = isolated.ctl("net", "leases", "nan")
    assert unknown.returncode != 0
    assert "no network 'nan' gives out addresses here; there are lan" in unknown.stderr

    apply(isolated)
    assert not is_listed(isolated)
    assert not listens(isolated)
    assert "novacron-networks" not in inside(isolated, "nft", "list", "tables")
    assert not (isolated.state_dir / "network" / "serving").exists()


def test_dnsmasq_outlives_the_network_service_and_comes_back_from_its_own_end(
    isolated: Node,
) -> None:
    """Kill -9 of either leaves the other alone."""
    apply(isolated, NETWORK)
    first = served(isolated)
    assert first.pid is not None
    service = isolated.component("core/network")
    assert service.pid is not None

    os.kill(service.pid, signal.SIGKILL)
    wait_until(lambda: isolated.component("core/network").restarts > service.restarts, "restart")
    isolated.wait_state("core/network", "healthy", WAIT_S)
    assert listens(isolated)
    assert served(isolated).pid == first.pid

    os.kill(first.pid, signal.SIGKILL)
    served(isolated, other_than=first.pid)
    assert listens(isolated)
    assert served(isolated).restarts == first.restarts + 1
    assert isolated.component("core/network").restarts == service.restarts + 1

    # The service that was started anew has put everything in force when it answers this.
    isolated.call("core/network", "networks.apply", {}, timeout_s=WAIT_S)
    inside(isolated, "nft", "delete", "table", "inet", "novacron-networks")
    isolated.wait_state("core/network", "degraded", WAIT_S)
    isolated.call("core/network", "networks.apply", {}, timeout_s=WAIT_S)
    isolated.wait_state("core/network", "healthy", WAIT_S)
    assert "novacron-networks" in inside(isolated, "nft", "list", "tables")


def test_a_dnsmasq_that_can_not_start_is_degraded_and_mended(isolated: Node) -> None:
    """Its last words are the reason; the other parts go on; a changed file is written again."""
    apply(isolated, NETWORK, drift="report")
    first = served(isolated)
    inside(isolated, "ip", "link", "del", "br-lan")

    isolated.wait_state(DNSMASQ, "degraded", WAIT_S)
    wait_until(
        lambda: any(
            record["name"] == "networks:not-served"
            and "unknown interface br-lan" in record["fields"]["reason"]
            for record in isolated.journal()
        ),
        "the reason",
        WAIT_S,
    )
    assert isolated.component("core/vm").state.value == "healthy"

    apply(isolated, NETWORK)
    second = served(isolated)
    isolated.wait_state("core/network", "healthy", WAIT_S)

    file = isolated.state_dir / "network/serving/lan/dnsmasq.conf"
    good = file.read_text()
    file.write_text("nonsense=1\n")
    assert second.pid is not None
    assert second.pid != first.pid
    os.kill(second.pid, signal.SIGKILL)
    inside(isolated, "ip", "link", "add", "other0", "type", "bridge")  # it looks at any change
    wait_until(lambda: file.read_text() == good, "the file written again", WAIT_S)
    served(isolated, other_than=second.pid)


def test_nobody_else_can_have_a_child_added(isolated: Node) -> None:
    """The template is all that there is, and an order can neither replace nor remove others."""
    with pytest.raises(Exception, match="takes no children by order"):
        isolated.call("core", "add", {"spec": {"id": "x", "start": "m:A"}})
    with pytest.raises(Exception, match="loses no children by order"):
        isolated.call("core", "delete", {"id": "vm"})
    settings = {"network": "../../../etc"}
    with pytest.raises(Exception, match="no network"):
        isolated.call(
            "core", "add", {"template": "dnsmasq", "id": "dnsmasq-x", "settings": settings}
        )
    wait_until(
        lambda: all(item.path != "core/dnsmasq-x" for item in isolated.status().components),
        "what did not start is no child",
    )


def test_a_killed_node_leaves_no_dnsmasq_and_serves_again_after_a_boot(isolated: Node) -> None:
    """Root and launcher die at once: the kernel ends dnsmasq, and the next boot starts another."""
    apply(isolated, NETWORK)
    first = served(isolated)
    assert first.pid is not None
    launcher = int(Path(f"/proc/{first.pid}/stat").read_text().rpartition(")")[2].split()[1])
    known = isolated.processes()

    for pid in (isolated.pid, launcher):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive([first.pid or 0]) or None, "dnsmasq gone", WAIT_S)
    assert isolated.process is not None
    isolated.process.wait(WAIT_S)
    wait_until(lambda: not alive(known) or None, f"left behind: {alive(known)}", WAIT_S)

    boot_again(isolated)
    served(isolated)
    assert listens(isolated)
