"""A whole node: it boots, serves, survives the loss of its parts, and stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.errors import RemoteCallError
from protocol.messages.status import Verdict
from supervisor.posix.processes import children_of
from tests.fixtures.fix_node import ROOT, Node, alive, wait_until

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.redis]


def title_of(pid: int) -> str:
    """What a process calls itself."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def get(port: int, path: str) -> tuple[int, bytes]:
    """One HTTP request to a port of the loopback."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=6) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read()


def test_a_node_boots_with_every_component_healthy(node: Node) -> None:
    """Each level is there, each component healthy, and the phases ended in order."""
    status = node.status()

    assert status.verdict is Verdict.READY, status.reason
    assert [c.path for c in status.components] == [
        "telemetry",
        "data",
        "data/postgres",
        "data/redis",
        "data/database",
        "data/cache",
        "security",
        "core",
        "core/network",
        "core/vm",
        "core/dwcp",
        "core/dwcp/manager",
        "core/dwcp/transport.0",
        "api",
        "optional",
        "optional/workload",
    ]
    names = [r["name"] for r in node.journal() if r["name"].startswith("init:")]
    assert names == [
        "init:preflight-passed",
        "init:config-loaded",
        "init:logging-setup",
        "init:databases-connected",
        "init:core-services-ready",
        "init:optional-services-ready",
        "init:complete",
    ]


def test_a_first_boot_makes_everything_that_is_missing(make_node: Callable[..., Node]) -> None:
    """From an empty directory to ready: cluster, schema, keys."""
    node = make_node(fresh=True).start()

    assert node.status().verdict is Verdict.READY
    assert (node.state_dir / "security/master.key").stat().st_mode & 0o777 == 0o600


def test_the_endpoints_answer(node: Node) -> None:
    """API, health and metrics are where the configuration puts them."""
    api, metrics, health, _dwcp = node.ports

    assert get(health, "/health/live")[0] == 200
    wait_until(lambda: get(health, "/health/ready")[0] == 200, "ready", 5.0)
    assert json.loads(get(api, "/api/v1/vms")[1])["items"][0]["name"] == "test"
    assert b"novacron_component_health" in get(metrics, "/metrics")[1]


def test_novacronctl_shows_the_node(node: Node) -> None:
    """The status screen and its JSON; exit code 0 for a ready node."""
    shown = node.ctl("status")
    asked = node.ctl("status", "--json")

    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("ready: all 16 components are healthy")
    assert json.loads(asked.stdout)["schema"] == "novacron.status/1"


@pytest.mark.parametrize(
    "path",
    [
        "telemetry",
        "data/database",
        "data/cache",
        "security",
        "core/network",
        "core/vm",
        "core/dwcp/manager",
        "core/dwcp/transport.0",
        "api",
        "optional/workload",
    ],
)
def test_a_killed_component_comes_back(node: Node, path: str) -> None:
    """SIGKILL of any Python component: another process, healthy again, and the node ready."""
    pid = node.component(path).pid
    assert pid is not None

    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        component = node.component(path)
        return component.pid not in (None, pid) and component.state.value == "healthy"

    wait_until(is_back, f"{path} back")
    wait_until(lambda: node.status().verdict is Verdict.READY, "ready again")


def test_a_killed_postgresql_comes_back_with_its_dependents(node: Node) -> None:
    """The server restarts and recovers; the database component follows it."""
    pid = node.component("data/postgres").pid
    assert pid is not None

    os.kill(pid, signal.SIGKILL)

    wait_until(lambda: node.component("data/postgres").pid not in (None, pid), "restarted")
    wait_until(lambda: node.status().verdict is Verdict.READY, "ready again", 20.0)


@pytest.mark.parametrize("path", ["data", "core", "core/dwcp", "optional"])
def test_a_killed_supervisor_takes_its_subtree_and_comes_back(node: Node, path: str) -> None:
    """No process of the subtree survives for a second, and the subtree comes back whole."""
    below = [c.pid for c in node.status().components if c.path.startswith(f"{path}/") and c.pid]
    pid = node.component(path).pid
    assert pid is not None

    os.kill(pid, signal.SIGKILL)

    wait_until(lambda: not alive(below), "the subtree is gone", 1.0)
    wait_until(lambda: node.status().verdict is Verdict.READY, "ready again", 20.0)


def test_a_killed_launcher_is_replaced_and_the_tree_comes_back(node: Node) -> None:
    """All components end with it, count as one restart, and the node is ready again."""
    before = {c.path: c.pid for c in node.status().components}
    (launcher,) = (pid for pid in children_of(node.pid) if "launcher" in title_of(pid))

    os.kill(launcher, signal.SIGKILL)

    wait_until(lambda: not alive([pid for pid in before.values() if pid]), "all are gone", 1.0)
    wait_until(lambda: node.status().verdict is Verdict.READY, "ready again", 30.0)
    assert {c.path for c in node.status().components} == before.keys()


def test_nothing_outlives_the_root(node: Node) -> None:
    """Kill -9 of the root: not one process of the tree is left after a second."""
    processes = node.processes()
    assert len(processes) > 20

    os.kill(node.pid, signal.SIGKILL)

    wait_until(lambda: not alive(processes), f"left: {alive(processes)}", 1.5)


def test_the_node_starts_again_after_kill_9(make_node: Callable[..., Node]) -> None:
    """Stale sockets, locks and an unclean PostgreSQL do not keep it from booting."""
    node = make_node().start()
    os.kill(node.pid, signal.SIGKILL)
    assert node.process is not None
    node.process.wait()

    node.start()

    assert node.status().verdict is Verdict.READY


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_orderly_and_complete(node: Node, number: signal.Signals) -> None:
    """Exit code 0, reverse order, nothing left."""
    processes = node.processes()

    code = node.stop(number)

    assert code == 0
    assert alive(processes) == []
    stopped = [
        record["record"]["component"]
        for record in map(json.loads, node.errors.splitlines())
        if record["event"] == "journal" and record["record"]["name"] == "component:exited"
    ]
    order = [stopped.index(path) for path in ("api", "core", "security", "data", "telemetry")]
    assert order == sorted(order), stopped


def test_a_second_node_on_the_same_state_directory_is_refused(node: Node) -> None:
    """Exit code 1, and the message names the process that has it."""
    second = subprocess.run(
        [
            str(ROOT / "bin/novacron"),
            "run",
            "--environment",
            "embedded",
            "--state-dir",
            str(node.state_dir),
        ],
        env=node.environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert second.returncode == 1
    assert str(node.pid) in second.stderr
    assert node.status().verdict is Verdict.READY


def test_two_nodes_do_not_disturb_each_other(make_node: Callable[..., Node]) -> None:
    """Different state directories and ports: both ready, and each stops alone."""
    first, second = make_node().start(), make_node().start()

    first.stop()

    assert second.status().verdict is Verdict.READY


def test_a_file_travels_between_two_nodes(make_node: Callable[..., Node]) -> None:
    """``novacronctl dwcp send`` ends when the file is whole and durable on the other node."""
    first, second = make_node().start(), make_node().start()
    content = os.urandom(3 << 20) + bytes(2 << 20)
    source = first.directory / "image.raw"
    source.write_bytes(content)

    sent = first.ctl("dwcp", "send", str(source), f"127.0.0.1:{second.ports[3]}", timeout_s=40)

    assert sent.returncode == 0, sent.stderr + sent.stdout
    assert (second.state_dir / "dwcp/incoming/image.raw").read_bytes() == content


def test_a_stopped_component_stays_stopped_until_started(node: Node) -> None:
    """The operator's commands, with their exit codes and the node's verdict."""
    assert node.ctl("stop", "vm").returncode == 0
    assert node.component("core/vm").state.value == "stopped"
    assert node.ctl("status").returncode in (1, 2)

    assert node.ctl("start", "vm").returncode == 0
    assert node.ctl("status").returncode == 0

    before = node.component("core/vm").pid
    assert node.ctl("restart", "vm").returncode == 0
    assert node.component("core/vm").pid != before


def test_sighup_restarts_only_what_changed(node: Node) -> None:
    """A changed rate limit restarts the gateway and nobody else."""
    before = {c.path: c.pid for c in node.status().components}
    file = ROOT / "etc/novacron/config.embedded.yaml"
    changed = node.directory / "etc"
    changed.mkdir()
    for source in (ROOT / "etc/novacron").glob("config.*.yaml"):
        (changed / source.name).write_bytes(source.read_bytes())
    assert file.exists()

    node.stop()
    node.flags = ["--config-dir", str(changed)]
    node.start()
    before = {c.path: c.pid for c in node.status().components}
    with (changed / "config.default.yaml").open() as default:
        text = default.read()
    assert "requestsPerMinute: 1000" in text
    (changed / "config.default.yaml").write_text(
        text.replace("requestsPerMinute: 1000", "requestsPerMinute: 1001")
    )
    os.kill(node.pid, signal.SIGHUP)
    wait_until(lambda: any(r["name"] == "node:reloaded" for r in node.journal()), "reloaded", 20.0)
    wait_until(lambda: node.component("api").pid not in (None, before["api"]), "api restarted")
    node.wait_state("api", "healthy")

    after = {c.path: c.pid for c in node.status().components}
    assert {path for path in before if before[path] != after[path]} == {"api"}


def test_a_bad_reload_changes_nothing(node: Node) -> None:
    """An invalid configuration is refused with its reason, and the node goes on."""
    before = {c.path: c.pid for c in node.status().components}
    changed = node.directory / "etc"
    changed.mkdir()
    for source in (ROOT / "etc/novacron").glob("config.*.yaml"):
        (changed / source.name).write_bytes(source.read_bytes())
    node.stop()
    node.flags = ["--config-dir", str(changed)]
    node.start()
    before = {c.path: c.pid for c in node.status().components}

    (changed / "config.embedded.yaml").write_text("api: {prot: 1}\n")
    os.kill(node.pid, signal.SIGHUP)
    wait_until(
        lambda: any(r["name"] == "node:reload-refused" for r in node.journal()), "refused", 20.0
    )

    assert {c.path: c.pid for c in node.status().components} == before


def test_a_hung_component_is_replaced(node: Node) -> None:
    """SIGSTOP stops its loop; the supervisor notices the missing beats and replaces it."""
    pid = node.component("telemetry").pid
    assert pid is not None
    started_s = time.monotonic()

    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: node.component("telemetry").pid not in (None, pid), "replaced", 25.0)

    assert time.monotonic() - started_s > 5.0
    assert "unresponsive" in node.component("telemetry").last_exit


def test_a_correlation_id_follows_a_call_into_the_log(node: Node) -> None:
    """What a request caused in another process is found by its id."""
    api, *_rest = node.ports
    asked = urllib.request.Request(
        f"http://127.0.0.1:{api}/api/v1/vms", headers={"X-Correlation-ID": "from-the-browser"}
    )
    with urllib.request.urlopen(asked, timeout=6) as answer:
        assert answer.headers["X-Correlation-ID"] == "from-the-browser"

    with pytest.raises(RemoteCallError):
        node.call("data/database", "checkpoint.save", {"component": 1}, correlation="ticket-7")

    log = node.state_dir / "logs/data.database.jsonl"
    wait_until(lambda: '"correlation": "ticket-7"' in log.read_text(), "the id in the log")
