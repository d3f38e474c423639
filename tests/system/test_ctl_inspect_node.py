"""explain, trace and top of a real node whose components die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.fix_node import ROOT, Node, wait_until

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.redis, pytest.mark.libvirt]


def explain(node: Node, name: str) -> dict[str, Any]:
    """The record that novacronctl prints."""
    done = node.ctl("explain", name, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def kill(node: Node, path: str) -> None:
    """Kill a component and wait for the next process of it."""
    before = node.component(path)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    wait_until(lambda: node.component(path).restarts > before.restarts, f"restart of {path}")


def start_trace(node: Node, *arguments: str) -> subprocess.Popen[str]:
    """Start novacronctl trace, and wait until it follows all supervisors."""
    process = subprocess.Popen(
        [str(ROOT / "bin/novacronctl"), "trace", "--state-dir", str(node.state_dir), *arguments],
        env={"PATH": os.environ["PATH"], "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "tracing novacron, data, core, core/dwcp, optional\n"
    return process


def test_explain_and_trace_of_what_dies_and_what_is_stopped(node: Node) -> None:
    """Exits, budget, operator's orders and the decisions of every supervisor come from the node."""
    trace = start_trace(node, "--json")
    kill(node, "core/network")
    node.wait_state("core/network", "healthy")
    assert node.ctl("stop", "workload").returncode == 0
    network, workload = explain(node, "network"), explain(node, "workload")
    trace.send_signal(signal.SIGINT)
    out, err = trace.communicate(timeout=10)

    assert (trace.returncode, err) == (0, "")
    child = network["child"]
    assert [end["kind"] for end in child["exits"]] == ["killed"]
    assert child["exits"][0]["ran_s"] > 0
    assert (child["decision"], child["budget"]["used"], child["incarnation"]) == ("up", 1, 2)
    assert "api" in [item["path"] for item in network["above"][0]["dependents"]]
    assert workload["child"]["order"]["verb"] == "stop"
    assert "stopped by an operator" in node.ctl("explain", "workload").stdout
    decisions = [json.loads(row) for row in out.splitlines()]
    assert decisions == sorted(decisions, key=lambda item: item["at_s"])
    seen = [
        (d["supervisor"], d["event"]["name"], d["event"]["fields"].get("id")) for d in decisions
    ]
    wanted = [
        ("core", "exited", "network"),
        ("core", "spawned", "network"),
        ("core", "became_ready", "network"),
        ("optional", "stop_child", "workload"),
        ("optional", "exited", "workload"),
    ]
    assert [item for item in seen if item in wanted] == wanted


def test_trace_goes_on_when_a_supervisor_is_replaced(node: Node) -> None:
    """What the new process decides is part of the stream, without a new start of the command."""
    trace = start_trace(node, "--json")
    kill(node, "core")
    node.wait_state("core/vm", "healthy")
    wait_until(lambda: node.status().verdict.value == "ready", "ready again", 20.0)
    trace.send_signal(signal.SIGINT)
    out, _err = trace.communicate(timeout=10)

    decisions = [json.loads(row) for row in out.splitlines()]
    ready = [
        (d["supervisor"], d["event"]["fields"]["id"])
        for d in decisions
        if d["event"]["name"] == "became_ready"
    ]
    assert ("core", "dwcp") in ready
    assert ("novacron", "core") in ready
    assert explain(node, "core")["child"]["exits"][0]["kind"] == "killed"


def test_top_counts_a_real_node(node: Node) -> None:
    """Every process of the node has its figures, PostgreSQL's below it are counted with it."""
    value = json.loads(node.ctl("top", "--once", "--json", "--pss", "--interval", "0.2").stdout)

    rows = {row["path"]: row for row in value["components"]}
    assert set(rows) == {"novacron", *(c.path for c in node.status().components)}
    assert all(row["threads"] and row["fds"] for row in rows.values())
    assert rows["data/postgres"]["processes"] > 3
    assert 50 << 20 < value["node"]["proportional_bytes"] < 400 << 20
    assert Path(f"/proc/{value['node']['pid']}").exists()
