"""novacronctl nodes: against real endpoints, and against a real node with its database."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from protocol import names
from protocol.records import Plain, from_wire, to_wire
from services.ctl.main import program
from services.data.health_records import NodesPage
from tests.fixtures.fix_node import ROOT, Node
from tests.system.ctl_node import Served
from tests.unit.services.ctl.test_ctl_nodes import PAGE

pytestmark = pytest.mark.process


@pytest.fixture(autouse=True)
def _run_directory_is_removed(tmp_path: Path) -> Iterator[None]:
    """The path of a test's directory is long, so its run directory lies elsewhere."""
    yield
    shutil.rmtree(names.run_dir(tmp_path), ignore_errors=True)


def serve(state: Path, **handlers: Plain) -> Served:
    """A root, and a database process that answers as given."""
    return Served(names.run_dir(state), {names.ROOT: {}, **handlers})


def invoke(state: Path, *arguments: str) -> Result:
    """Run a command line in this process."""
    runner = CliRunner(env={"COLUMNS": "100", "NOVACRON_SYSTEM_DATADIR": str(state)})
    return runner.invoke(program, list(arguments))


def test_nodes_of_a_database_are_shown(tmp_path: Path) -> None:
    """As a table, and as JSON with every field."""
    served = serve(tmp_path, **{"data/database": {"health.watch": lambda _body: to_wire(PAGE)}})
    try:
        table = invoke(tmp_path, "nodes")
        document = invoke(tmp_path, "nodes", "--json")
    finally:
        served.close()

    assert (table.exit_code, document.exit_code) == (0, 0)
    assert table.stdout.splitlines()[0].split()[:3] == ["NODE", "STATE", "FOR"]
    assert "was ready; has not renewed its lease" in table.stdout
    assert from_wire(NodesPage, json.loads(document.stdout)) == PAGE


def test_database_process_that_is_down_is_said(tmp_path: Path) -> None:
    """The node runs, and this it can't tell: the exit code says failed, not absent."""
    served = serve(tmp_path)
    try:
        result = invoke(tmp_path, "nodes")
    finally:
        served.close()

    assert result.exit_code == 1
    assert result.stderr == "novacronctl: data/database is not running\n"


def test_answer_of_another_version_is_said(tmp_path: Path) -> None:
    """With what to do."""
    answer = {"data/database": {"health.watch": lambda _body: {"nodes": 3}}}
    served = serve(tmp_path, **answer)
    try:
        result = invoke(tmp_path, "nodes")
    finally:
        served.close()

    assert result.exit_code == 1
    assert "use the novacronctl that belongs to it" in result.stderr


def test_watch_prints_a_line_per_change_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    """Time that passes is no change; a node that becomes another is."""
    changed = dataclasses.replace(PAGE, mark="m.3", nodes=PAGE.nodes[:1])
    pages = iter([PAGE, dataclasses.replace(PAGE, mark="m.2"), changed])

    def watch(_body: Plain) -> Plain:
        page = next(pages, None)
        return Served.SILENCE if page is None else to_wire(page)

    served = serve(tmp_path, **{"data/database": {"health.watch": watch}})
    try:
        with _start(tmp_path, "nodes", "--watch", "--json") as process:
            assert process.stdout is not None
            lines = [json.loads(process.stdout.readline()) for _ in range(2)]
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
    finally:
        served.close()

    assert [line["mark"] for line in lines] == ["m.1", "m.3"]


@pytest.mark.postgres
@pytest.mark.redis
@pytest.mark.libvirt
def test_real_node_sees_itself_and_what_is_stopped_in_it(node: Node) -> None:
    """Through the journal, the table, the notification and the watch."""
    with _start(node.state_dir, "nodes", "--watch", "--json") as process:
        assert process.stdout is not None
        page = from_wire(NodesPage, json.loads(process.stdout.readline()))
        own = {item.node.node_id: item for item in page.nodes}[page.own_id]
        assert page.is_current
        assert own.standing.value in ("ready", "unwell")
        assert node.ctl("stop", "workload").returncode == 0
        while "optional/workload" not in {c.component for c in own.unwell}:
            page = from_wire(NodesPage, json.loads(process.stdout.readline()))
            own = {item.node.node_id: item for item in page.nodes}[page.own_id]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0

    assert own.standing.value == "unwell"
    assert "optional/workload stopped" in node.ctl("nodes").stdout


def _start(state: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(ROOT / "bin/novacronctl"), *arguments, "--state-dir", str(state)],
        env={"PATH": os.environ["PATH"], "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
