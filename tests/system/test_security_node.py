"""The audit log of a whole node: what its life leaves behind."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from typing import Any

import pytest

from protocol.records import from_wire
from services.security.model import SecurityStatus
from tests.fixtures.fix_node import Node, wait_until

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.redis, pytest.mark.libvirt]


def lines(node: Node, boot_id: str) -> list[dict[str, Any]]:
    """The records that the node's own file has of a boot's journal; it has earlier boots' too."""
    text = (node.state_dir / "security/audit.jsonl").read_text()
    found = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    return [line for line in found if line["boot_id"] == boot_id]


def calls(node: Node) -> list[dict[str, Any]]:
    """What the node's file has of restarts that persons ordered; they come from the spool."""
    text = (node.state_dir / "security/audit.jsonl").read_text()
    found = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    return [line for line in found if line["action"] == "call:restart"]


def has(node: Node, boot_id: str, action: str, subject: str) -> bool:
    """Whether an action of a boot is recorded."""
    found = lines(node, boot_id)
    return any((line["action"], line["subject"]) == (action, subject) for line in found)


def test_a_node_records_its_life(node: Node) -> None:
    """Boot, a crash, an operator's order, a restart of the recorder itself: each one once."""
    boot_id = node.call("novacron", "journal", {"limit": 1})["boot_id"]
    wait_until(lambda: has(node, boot_id, "init:complete", "novacron"), "the boot's record")

    vm = node.component("core/vm").pid
    assert vm is not None
    os.kill(vm, signal.SIGKILL)
    wait_until(lambda: has(node, boot_id, "component:exited", "core/vm"), "the crash's record")
    security = node.component("security").pid
    assert security is not None
    os.kill(security, signal.SIGKILL)
    wait_until(lambda: has(node, boot_id, "component:exited", "security"), "its own crash")
    node.wait_state("core/network", "healthy")  # restarted with it, by rest_for_one
    node.call("core", "restart", {"id": "network"})
    wait_until(lambda: len(calls(node)) == 2, "the operator's record, and that of the outcome")
    report = node.call("security", "audit.verify")
    status = from_wire(SecurityStatus, node.call("security", "security.status"))
    assert node.stop() == 0

    found = lines(node, boot_id)
    sources = Counter(line["journal_seq"] for line in found)
    assert report["first_bad"] is None
    assert status.audit.trouble == ""
    assert status.audit.lost == 0
    assert max(sources.values()) == 1
    assert has(node, boot_id, "node:stopping", "novacron")
    assert [(line["actor"], line["subject"], line["outcome"]) for line in calls(node)] == [
        ("operator/root", "core/network", "requested"),
        ("operator/root", "core/network", "success"),
    ]
    healthy = {line["subject"] for line in found if line["action"] == "component:healthy"}
    assert {"telemetry", "data/database", "security", "core/vm", "api"} <= healthy
