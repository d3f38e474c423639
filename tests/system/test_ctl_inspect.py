"""novacronctl top, tree --watch, explain and trace against real endpoints and terminals."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from protocol import names
from protocol.errors import NovacronError
from protocol.messages.explain import Budget, ChildExplanation, Explanation, PastExit, Supervision
from protocol.messages.health import HealthState
from protocol.messages.journal import JournalPage
from protocol.messages.status import ComponentStatus
from protocol.messages.trace import Decision, TraceItem, TracePage
from protocol.records import Plain, from_wire, to_wire
from services.ctl.main import program
from tests.system.ctl_node import Served
from tests.unit.services.ctl.ctl_samples import component, node

pytestmark = pytest.mark.process

PROGRAM = (sys.executable, "-m", "services.ctl")
BUDGET = Budget(used=1, intensity=5, period_s=60.0, shared=True)


class RefusedError(NovacronError):
    """What a supervisor says to a caller that it does not obey."""

    code = "supervisor.access_refused"


def supervisor(path: str, **fields: Any) -> ComponentStatus:
    """A component that is a supervisor."""
    return dataclasses.replace(component(path, path, **fields), kind="supervisor")


def decision(seq: int, at_s: float, path: str, child_id: str) -> Decision:
    """A child of a supervisor became ready."""
    event = TraceItem(name="became_ready", fields={"id": child_id, "incarnation": 1})
    return Decision(
        seq=seq,
        time_s=1.7e9 + at_s,
        at_s=at_s,
        supervisor=path,
        mode="running",
        used=0,
        intensity=5,
        event=event,
    )


class Node:
    """A node of two supervisors whose answers a test may change at any time."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.components: tuple[ComponentStatus, ...] = (
            supervisor("core", pid=os.getpid()),
            component("core/vm", "vm", pid=None, state=HealthState.STARTING, uptime_s=None),
        )
        self.decisions: dict[str, list[Decision]] = {names.ROOT: [], "core": []}
        self.explain: Callable[[Plain], Plain] = self._explain
        self.trace: dict[str, Callable[[Plain], Plain]] = {
            path: lambda body, path=path: self._trace(path, body) for path in self.decisions
        }
        calls = {
            path: {
                "explain": lambda body, _path=path: self.explain(body),
                "trace": lambda body, path=path: self.trace[path](body),
            }
            for path in self.decisions
        }
        calls[names.ROOT] |= {
            "status": lambda _body: to_wire(node(components=self.components)),
            "journal": self._journal,
        }
        self.served = Served(names.run_dir(state), calls)

    def _journal(self, body: Plain) -> Plain:
        time.sleep(0.05)  # the root would hold the answer back; this thread serves all others too
        return to_wire(JournalPage(boot_id="b", records=(), next=body.get("since", 0)))

    def _explain(self, body: Plain) -> Plain:
        supervision = Supervision(
            path="core",
            mode="running",
            strategy="one_for_one",
            budget=BUDGET,
            starting=0,
            start_concurrency=4,
        )
        if not body.get("id"):
            return to_wire(Explanation(supervisor=supervision))
        child = ChildExplanation(
            path=f"core/{body['id']}",
            state=HealthState.STARTING,
            reason="restarting after killed: SIGKILL",
            decision="waiting",
            wanted=True,
            kind="service",
            failure="critical",
            restart="permanent",
            incarnation=2,
            retry_in_s=2.3,
            start_timeout_s=30.0,
            shutdown_s=5.0,
            budget=BUDGET,
            exits=(PastExit(time_s=time.time() - 1, incarnation=2, kind="killed", ran_s=1.0),),
        )
        return to_wire(Explanation(supervisor=supervision, child=child))

    def _trace(self, path: str, body: Plain) -> Plain:
        time.sleep(0.02)
        since = body.get("since", 0)
        found = tuple(d for d in self.decisions[path] if d.seq >= since)
        following = found[-1].seq + 1 if found else max(since, 1)
        return to_wire(TracePage(recording="r", decisions=found, next=following))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Node]:
    """A node that runs."""
    found = Node(tmp_path)
    yield found
    found.served.close()
    shutil.rmtree(names.run_dir(tmp_path), ignore_errors=True)


def invoke(state: Path, *arguments: str) -> Result:
    """Run a command line in this process."""
    runner = CliRunner(env={"COLUMNS": "100", "NOVACRON_SYSTEM_DATADIR": str(state)})
    return runner.invoke(program, list(arguments))


def test_explain_asks_the_supervisor_and_those_above(running: Node) -> None:
    """The component's own supervisor is asked first, then the one above about that supervisor."""
    result = invoke(running.state, "explain", "vm")

    assert result.exit_code == 0
    assert result.stdout.startswith("core/vm is starting\n  restarting after killed: SIGKILL\n")
    assert "next try     in 2.30 s" in result.stdout
    assert "exited once in the last 60 s (limit 5)" in result.stdout
    assert running.served.calls == [
        ("core", "explain", {"id": "vm"}),
        (names.ROOT, "explain", {"id": "core"}),
    ]


def test_explain_json(running: Node) -> None:
    """The record holds every field of what the supervisors said."""
    value = json.loads(invoke(running.state, "explain", "core", "--json").stdout)

    assert value["schema"] == "novacron.explain/1"
    assert list(value) == [
        *("schema", "component", "child", "supervisor", "own", "above", "problem"),
    ]
    assert value["own"]["budget"] == {
        "used": 1,
        "intensity": 5,
        "period_s": 60.0,
        "shared": True,
    }
    assert from_wire(ChildExplanation, value["child"]).retry_in_s == 2.3


def test_explain_the_root(running: Node) -> None:
    """The node's own name stands for the root supervisor, which has nobody above it."""
    result = invoke(running.state, "explain", "novacron")

    assert result.stdout.startswith("novacron is degraded, up for 3h 12m")
    assert "has used 1 of 5 within 60 s" in result.stdout


def test_explain_below_a_supervisor_that_is_down(running: Node) -> None:
    """What can't be asked is explained by what is above it."""
    names.socket_path(names.run_dir(running.state), "core").unlink()

    result = invoke(running.state, "explain", "vm")

    assert result.exit_code == 0
    assert "it waits for its supervisor core/core" in result.stdout
    assert "core is not running" in result.stdout


@pytest.mark.parametrize("arguments", [["explain", "vm"], ["trace", "--duration", "5"]])
def test_refusal_ends_with_4(running: Node, arguments: list[str]) -> None:
    """A key that does not allow it is told so."""

    def refuse(_body: Plain) -> Plain:
        raise RefusedError("somebody may not look")

    running.explain = refuse
    running.trace = dict.fromkeys(running.trace, refuse)

    result = invoke(running.state, *arguments)

    assert result.exit_code == 4
    assert "somebody may not look" in result.stderr


def test_unknown_component_is_not_asked_for(running: Node) -> None:
    """A typing error reaches no supervisor."""
    for arguments in (["explain", "vmm"], ["trace", "vmm"]):
        assert invoke(running.state, *arguments).exit_code == 2
    assert running.served.calls == []


def test_trace_merges_supervisors_by_time(running: Node) -> None:
    """What several supervisors decided comes out in the order in which it happened, each once."""
    now_s = time.monotonic() + 0.5
    running.decisions[names.ROOT] += [decision(1, now_s + 2.0, names.ROOT, "core")]
    running.decisions["core"] += [
        decision(1, now_s + 1.0, "core", "vm"),
        decision(2, now_s + 3.0, "core", "x"),
    ]

    result = invoke(running.state, "trace", "--duration", "0.7", "--json")

    records = [from_wire(Decision, json.loads(row)) for row in result.stdout.splitlines()]
    assert [record.event.fields["id"] for record in records] == ["vm", "core", "x"]
    assert result.stderr == "tracing novacron, core\n"


def test_trace_of_a_component(running: Node) -> None:
    """Only its supervisor is asked, and only what is about it is shown."""
    running.decisions["core"] += [decision(1, 1.0, "core", "vm"), decision(2, 3.0, "core", "x")]

    result = invoke(running.state, "trace", "vm", "--duration", "0.5")

    assert [text[14:] for text in result.stdout.splitlines()] == [
        "core       vm is ready  → nothing"
    ]
    assert {path for path, _method, _body in running.served.calls} == {"core"}


def test_trace_is_ended_by_ctrl_c(running: Node) -> None:
    """Ctrl-C is the way to end it; what was held back is printed first."""
    with subprocess.Popen(
        [*PROGRAM, "trace"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(running),
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "tracing novacron, core\n"
        running.decisions["core"] += [decision(1, time.monotonic() + 60, "core", "vm")]
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)

    assert (process.returncode, err) == (0, "")
    assert "vm is ready" in out


def test_top_once(running: Node) -> None:
    """One table of real processes: this one, and those that are not there."""
    result = invoke(running.state, "top", "--once", "--interval", "0.1")

    rows = {row.split()[0]: row.split() for row in result.stdout.splitlines()[5:]}
    assert result.exit_code == 0
    assert rows["core"][:3] == ["core", "healthy", str(os.getpid())]
    assert float(rows["core"][3]) >= 0.0
    assert rows["core"][5] == "MiB"
    assert rows["core/vm"][3:5] == ["-", "-"]


def test_top_json_lines(running: Node) -> None:
    """Without --once a sample is a JSON line, until Ctrl-C, which is no failure."""
    with subprocess.Popen(
        [*PROGRAM, "top", "--json", "--pss", "--interval", "0.1", "--sort", "name"],
        stdout=subprocess.PIPE,
        env=environment(running),
        text=True,
    ) as process:
        assert process.stdout is not None
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)

    assert process.returncode == 0
    assert first["schema"] == "novacron.top/1"
    assert second["time_s"] > first["time_s"]
    assert second["interval_s"] < 5.0
    core = second["components"][1]
    assert (core["path"], core["kind"]) == ("core", "supervisor")
    assert core["proportional_bytes"] > 0
    assert core["fds"] > 0


def test_top_waits_for_a_node_that_is_down(running: Node) -> None:
    """A node that goes away is told on the error stream, and the samples go on with the next."""
    running.served.close()

    process = subprocess.Popen(
        [*PROGRAM, "top", "--interval", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(running),
        text=True,
    )
    with process:
        assert process.stderr is not None
        assert "waiting for it" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)

    assert process.returncode == 0


def environment(running: Node, **more: str) -> dict[str, str]:
    """The environment of a novacronctl process."""
    return {**os.environ, "NOVACRON_SYSTEM_DATADIR": str(running.state), **more}


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, running: Node, *arguments: str, size: tuple[int, int] = (24, 80)) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(self.master, size)
        self.modes = termios.tcgetattr(self.master)
        self.seen = ""
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(running, TERM="xterm", NO_COLOR=""),
            start_new_session=True,
        )
        os.close(slave)

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self.master, keys.encode())

    def wait_for(self, pattern: str) -> str:
        """Wait until the terminal shows something new; returns what came since the last time."""
        deadline_s = time.monotonic() + 20
        text = ""
        while not re.search(pattern, text):
            assert time.monotonic() < deadline_s, f"{pattern!r} not in {text!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    text += os.read(self.master, 65536).decode("utf-8", "replace")
                except OSError:  # EIO: the last writer has gone
                    break
        self.seen += text
        return text

    def end(self) -> int:
        """Wait for the command's end; checks that the terminal is as it was before."""
        code = self.process.wait(10)
        with contextlib.suppress(OSError):
            while select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
        assert termios.tcgetattr(self.master) == self.modes
        assert self.seen.rindex("\x1b[?1049l") > self.seen.rindex("\x1b[?1049h")
        assert self.seen.rindex("\x1b[?25h") > self.seen.rindex("\x1b[?25l")
        os.close(self.master)
        return code


def test_top_takes_keys_on_a_terminal(running: Node) -> None:
    """Keys change the order and the kind of memory at once; q gives the terminal back."""
    terminal = Terminal(running, "top", "--interval", "30", size=(24, 110))

    first = terminal.wait_for("core/vm")
    terminal.press("m")
    terminal.wait_for("\x1b\\[1m memory")
    terminal.press("\x1b[A")  # an arrow counts for nothing
    terminal.press("p")
    terminal.wait_for("PSS")
    terminal.press("q")

    assert terminal.end() == 0
    assert "\x1b[1m cpu" in first
    assert "RSS" in first


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_terminal_is_given_back_at_a_signal(
    running: Node, number: signal.Signals, code: int
) -> None:
    """Whatever ends the command, the terminal has its modes, contents and cursor again."""
    terminal = Terminal(running, "top")
    terminal.wait_for("core/vm")

    terminal.process.send_signal(number)

    assert terminal.end() == code


def test_terminal_is_given_back_while_it_is_suspended(running: Node) -> None:
    """Ctrl-Z gives the terminal to the shell; when continued, the screen is drawn again."""
    terminal = Terminal(running, "top", "--interval", "30")
    terminal.wait_for("core/vm")

    terminal.process.send_signal(signal.SIGTSTP)
    terminal.wait_for(r"\x1b\[\?1049l")
    os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED | os.WNOWAIT)
    assert termios.tcgetattr(terminal.master) == terminal.modes
    terminal.process.send_signal(signal.SIGCONT)
    terminal.wait_for("core/vm")
    terminal.press("q")

    assert terminal.end() == 0


def test_small_terminal_is_not_overrun(running: Node) -> None:
    """A terminal of six lines shows as much as it has room for, and follows when it grows."""
    terminal = Terminal(running, "top", "--interval", "30", size=(6, 40))
    first = terminal.wait_for("more lines")
    assert first.split("\x1b[H")[-1].count("\n") == 5

    termios.tcsetwinsize(terminal.master, (24, 80))
    os.killpg(terminal.process.pid, signal.SIGWINCH)
    terminal.wait_for("core/vm")
    terminal.press("q")

    assert terminal.end() == 0


def test_tree_watch_marks_what_changed(running: Node) -> None:
    """The tree is drawn again at once, with the changed component marked."""
    terminal = Terminal(running, "tree", "--watch", "--interval", "0.2")
    first = terminal.wait_for("vm")

    running.components = (running.components[0], component("core/vm", "vm", pid=4711))
    marked = terminal.wait_for(r"\*")
    terminal.press("q")

    assert terminal.end() == 0
    assert "*" not in first
    assert "\x1b[7mvm\x1b[0m" in marked


def test_tree_watch_without_a_terminal(running: Node) -> None:
    """Elsewhere the tree is printed once per change."""
    with subprocess.Popen(
        [*PROGRAM, "tree", "--watch", "--interval", "0.1"],
        stdout=subprocess.PIPE,
        env=environment(running, COLUMNS="80"),
        text=True,
    ) as process:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(4)]
        running.components = (running.components[0], component("core/vm", "vm", pid=4711))
        second = [process.stdout.readline() for _ in range(4)]
        process.send_signal(signal.SIGINT)
        rest, _none = process.communicate(timeout=10)

    assert (process.returncode, rest) == (0, "")
    assert first[2] == "   └─ vm  starting\n"
    assert second[2] == "   └─ vm  4711  healthy *\n"
    assert first[3] == second[3] == "\n"
