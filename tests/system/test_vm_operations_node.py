"""novacronctl vm against a real node on libvirt's test driver."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.fix_node import Node, wait_until

pytestmark = [
    pytest.mark.process,
    pytest.mark.postgres,
    pytest.mark.redis,
    pytest.mark.libvirt,
]


def said(node: Node, *arguments: str) -> str:
    """What an order that succeeds prints."""
    done = node.ctl("vm", *arguments, timeout_s=60.0)
    assert done.returncode == 0, done
    return done.stdout.strip()


def ordered_over_http(node: Node, verb: str) -> Any:
    """What came of an order through the API, by somebody with a token of the node's."""
    made = node.ctl("token", "create", f"ci-{verb}", "--role", "operator", "--lifetime", "1h")
    token = next(word for word in made.stdout.split() if word.startswith("nova_"))
    api = httpx.Client(
        base_url=f"http://127.0.0.1:{node.ports[0]}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30.0,
    )
    with api:
        begun = api.post(f"/api/v1/vms/test/{verb}")
        assert begun.status_code == 202, begun.text
        return api.get(begun.headers["location"], params={"wait": 20}).json()


def test_an_operator_leads_a_guest_through_its_life(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    """Orders, what they say, their records in the audit, and images in the node's directory."""
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    node = make_node().start()
    node.wait_ready()

    assert said(node, "stop", "test") == "test is off after its power button was pressed (ACPI)"
    assert said(node, "stop", "test") == "test was off already"
    assert said(node, "start", "test") == "test runs"
    row = said(node, "leases", "--all").splitlines()[1].split()
    assert (row[0], row[2], row[-2:]) == ("test", "held", [row[-2], "runs"])
    [lease] = json.loads(said(node, "leases", "--json"))["leases"]
    assert (lease["name"], lease["is_running"]) == ("test", True)
    assert lease["acquired_by"].startswith("operator/")
    assert said(node, "pause", "test") == "test is paused"
    record = json.loads(said(node, "resume", "--json", "test"))
    assert (record["state"], record["method"]) == ("done", "vm.resume")
    assert record["caller"].startswith("operator/")
    figures = json.loads(said(node, "top", "--once", "--json", "test"))
    assert [item["name"] for item in figures["domains"]] == ["test"]
    assert "test" in said(node, "top", "--once")
    status = said(node, "status")
    assert "connected to TEST" in status
    assert "no machine to start in this boot of the host" in status
    assert json.loads(said(node, "status", "--json"))["autostart"]["is_over"]
    begun = said(node, "autostart", "test", "on", "--no-wait")
    assert "test" in begun

    images = node.state_dir / "images"
    data = str(images / "data.qcow2")
    assert said(node, "image", "create", data, "8M") == f"{data} is made"
    assert "size       8.0 MiB" in said(node, "image", "info", data)
    user_data = tmp_path / "user.yaml"
    user_data.write_text("#cloud-config\n")
    seed = str(images / "seed.iso")
    assert said(node, "image", "seed", seed, "--user-data", str(user_data)) == f"{seed} is made"

    for arguments, code, text in (
        (("start", "nobody"), 1, "nobody"),
        (("assign", "nobody", "node-2"), 1, "there is no document nobody"),
        (("start", "--takeover", "nobody"), 1, "nobody"),
        (("image", "create", data, "8M"), 1, "nothing is overwritten"),
        (("image", "info", "/etc/shadow"), 1, "outside the directories"),
        (("resize", "test"), 2, "nothing to resize"),
        (("cancel", "999"), 1, "no operation 999"),
    ):
        done = node.ctl("vm", *arguments)
        assert (done.returncode, text in done.stderr) == (code, True), done

    table = said(node, "operations")
    assert "vm.resume" in table
    names = [record["name"] for record in node.journal()]
    assert names.count("vm:operation") >= 7

    assert ordered_over_http(node, "pause")["note"] == "test is paused"
    assert ordered_over_http(node, "resume")["state"] == "done"

    def recorded() -> bool:
        trail = node.ctl("audit", "tail", "-n", "200", "--action", "call:vm-stop", "--json")
        return trail.returncode == 0 and "vm-stop" in trail.stdout

    wait_until(recorded, "audit record of the stop")


def test_a_killed_component_leaves_no_copy_running(make_node: Callable[..., Node]) -> None:
    """qemu-img ends with it, nothing has the target's name, and the same order works again."""
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    node = make_node().start()
    node.wait_ready()
    images = node.state_dir / "images"
    source, target = images / "a.raw", images / "b.qcow2"
    said(node, "image", "create", str(source), "1M")
    with source.open("wb") as file:
        for _ in range(64):
            file.write(b"novacron" * (1 << 17))

    said(node, "image", "clone", str(source), str(target), "--compress", "--no-wait")
    part = images / ".b.qcow2.part"
    wait_until(part.exists, "begin of the copy")
    pid = node.component("core/vm").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not users_of(part), "end of qemu-img")
    node.wait_state("core/vm", "healthy")

    assert not target.exists()
    assert said(node, "image", "clone", str(source), str(target)).endswith("a.raw")
    assert not part.exists()


def users_of(path: Path) -> list[str]:
    """Processes that have a file open."""
    found = []
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if descriptor.readlink() == path:
                found.append(str(descriptor))
    return found
