"""novacronctl against real endpoints: sockets, keys, permissions, terminals and exit codes."""

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
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from protocol import names
from protocol.errors import NovacronError
from protocol.messages.journal import JournalPage, JournalRecord
from protocol.messages.status import NodeStatus, Verdict
from protocol.records import Plain, from_wire, to_wire
from services.ctl.main import program
from services.dwcp.model import DwcpStatus, Totals, TransferState
from tests.system.ctl_node import Served
from tests.unit.services.ctl.ctl_samples import COMPONENTS, boot_report, node
from tests.unit.services.ctl.test_ctl_transfers import FINISHED, MOVING

pytestmark = pytest.mark.process

PROGRAM = (sys.executable, "-m", "services.ctl")
Answer = Callable[[Plain], Plain]


class RefusedError(NovacronError):
    """What a supervisor says to a caller that it does not obey."""

    code = "supervisor.access_refused"


class Node:
    """A node whose answers a test may change at any time."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.status = node()
        self.records = [
            JournalRecord(
                seq=seq,
                time_s=1_700_000_000.0 + seq,
                name="component:state",
                component="core/vm",
                fields={"state": "healthy", "count": seq},
            )
            for seq in range(3, 403)
        ]
        self.verbs: dict[str, Answer] = {
            verb: lambda _body: {"state": "healthy", "reason": ""}
            for verb in ("start", "stop", "restart")
        }
        self.transfers = iter((MOVING, MOVING, FINISHED))
        self.served = Served(
            names.run_dir(state),
            {
                names.ROOT: {
                    "status": lambda _body: to_wire(self.status),
                    "journal": self._journal,
                    "boot": lambda _body: to_wire(boot_report()),
                    **self.verbs_of("root"),
                },
                "core": self.verbs_of("core"),
                "core/dwcp/manager": {
                    "dwcp.send": lambda _body: {"transfer": MOVING.transfer},
                    "dwcp.cancel": lambda _body: {},
                    "dwcp.status": self._dwcp_status,
                },
            },
        )

    def verbs_of(self, _path: str) -> dict[str, Answer]:
        """The commands of a supervisor; looked up anew for each call."""
        return {verb: lambda body, verb=verb: self.verbs[verb](body) for verb in self.verbs}

    def _journal(self, body: Plain) -> Plain:
        since = max(body.get("since", 0), 1)
        records = tuple(r for r in self.records if r.seq >= since)[: body.get("limit", 200)]
        following = records[-1].seq + 1 if records else max(since, self.records[-1].seq + 1)
        lost = max(0, self.records[0].seq - since)
        page = JournalPage(boot_id="b", records=records, next=following, lost=lost)
        return to_wire(page)

    def _dwcp_status(self, _body: Plain) -> Plain:
        transfers = (next(self.transfers),)
        return to_wire(
            DwcpStatus(address="127.0.0.1:1", transports=(), totals=Totals(), transfers=transfers)
        )


@pytest.fixture(autouse=True)
def _run_directory_is_removed(tmp_path: Path) -> Iterator[None]:
    """The path of a test's directory is long, so its run directory lies elsewhere."""
    yield
    shutil.rmtree(names.run_dir(tmp_path), ignore_errors=True)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Node]:
    """A node that runs."""
    found = Node(tmp_path)
    yield found
    found.served.close()


def invoke(state: Path, *arguments: str) -> Result:
    """Run a command line in this process."""
    runner = CliRunner(env={"COLUMNS": "80", "NOVACRON_SYSTEM_DATADIR": str(state)})
    return runner.invoke(program, list(arguments))


@pytest.mark.parametrize(
    ("verdict", "code", "word"),
    [
        (Verdict.READY, 0, "ready"),
        (Verdict.DEGRADED, 1, "degraded"),
        (Verdict.NOT_READY, 2, "not ready"),
    ],
)
def test_status_exit_code_is_the_verdict(
    running: Node, verdict: Verdict, code: int, word: str
) -> None:
    """The screen's first word and the exit code say the same."""
    running.status = dataclasses.replace(running.status, verdict=verdict)

    result = invoke(running.state, "status")

    assert result.exit_code == code
    assert result.stdout.splitlines()[0] == f"{word}: core/vm: libvirt does not answer"


def test_status_json_is_the_record(running: Node) -> None:
    """The JSON holds the record that the node sent, whole, and nothing else is printed."""
    result = invoke(running.state, "status", "--json")

    assert from_wire(NodeStatus, json.loads(result.stdout)) == running.status
    assert result.stderr == ""


def test_tree_and_boot(running: Node) -> None:
    """The other two screens come from the node as well."""
    assert "└─ transport.0" in invoke(running.state, "tree").stdout
    assert invoke(running.state, "boot").stdout.startswith("boot took 1.24 s")
    assert json.loads(invoke(running.state, "boot", "--json").stdout)["total_s"] == 1.24


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
@pytest.mark.parametrize(
    ("name", "path", "parent"), [("vm", "core/vm", "core"), ("data", "data", "novacron")]
)
def test_component_commands_go_to_the_supervisor(
    running: Node, verb: str, name: str, path: str, parent: str
) -> None:
    """A component's own supervisor is asked, and the answer is told."""
    result = invoke(running.state, verb, name)

    assert result.exit_code == 0
    assert result.stdout == f"{path} is healthy\n"
    assert running.served.calls == [(parent, verb, {"id": path.rpartition("/")[2]})]


def test_component_that_does_not_come_up(running: Node) -> None:
    """A restart that leaves the component unhealthy has failed."""
    running.verbs["restart"] = lambda _body: {"state": "unhealthy", "reason": "no libvirt"}

    result = invoke(running.state, "restart", "vm")

    assert result.exit_code == 1
    assert result.stdout == "core/vm is unhealthy: no libvirt\n"


def test_supervisor_that_refuses(running: Node) -> None:
    """A refusal of the node ends with 4, like one of the file system."""

    def refuse(_body: Plain) -> Plain:
        raise RefusedError("you may not restart")

    running.verbs["restart"] = refuse

    result = invoke(running.state, "restart", "vm")

    assert result.exit_code == 4
    assert result.stderr == "novacronctl: core: you may not restart\n"


def test_unknown_component_is_not_asked_for(running: Node) -> None:
    """A typing error reaches no supervisor."""
    result = invoke(running.state, "stop", "vmm")

    assert result.exit_code == 2
    assert "did you mean" in result.stderr
    assert running.served.calls == []


def test_events_of_all_pages(running: Node) -> None:
    """The journal is read page by page to its end, and what is lost is said."""
    result = invoke(running.state, "events", "--json")

    numbers = [json.loads(text)["seq"] for text in result.stdout.splitlines()]
    assert numbers == list(range(3, 403))
    assert result.stderr == "2 earlier events are no longer kept\n"


def test_last_events(running: Node) -> None:
    """With a limit, only the last ones are shown."""
    lines = invoke(running.state, "events", "-n", "2").stdout.splitlines()

    assert [text.rpartition("=")[2] for text in lines] == ["401", "402"]


def test_dwcp_send_waits_for_the_end(running: Node) -> None:
    """The request names an absolute path; the command ends with what the transfer took."""
    result = invoke(running.state, "dwcp", "send", "--streams", "4", "disk.raw", "[::1]:7800")

    assert result.exit_code == 0
    assert result.stdout.startswith("sent: /srv/disk.raw to 10.0.0.2:7800: 1.0 GiB in 2.00 s")
    body = {"file": str(Path.cwd() / "disk.raw"), "host": "::1", "port": 7800, "streams": 4}
    assert running.served.calls == [("core/dwcp/manager", "dwcp.send", body)]


def test_dwcp_send_that_fails(running: Node) -> None:
    """A transfer that fails ends with 1 and the reason."""
    failed = dataclasses.replace(
        FINISHED, state=TransferState.FAILED, message="disk full", error="dwcp.disk_full"
    )
    running.transfers = iter((failed,))

    result = invoke(running.state, "dwcp", "send", "disk.raw", "host:7800")

    assert result.exit_code == 1
    assert "disk full (dwcp.disk_full)" in result.stderr


def test_dwcp_without_waiting_and_cancel(running: Node) -> None:
    """Without waiting the id is printed, and its beginning is enough to cancel it."""
    sent = invoke(running.state, "dwcp", "send", "--no-wait", "disk.raw", "host:7800")
    cancelled = invoke(running.state, "dwcp", "cancel", sent.stdout[:6])

    assert sent.stdout == f"{MOVING.transfer}\n"
    assert cancelled.exit_code == 0
    assert running.served.calls[-1][2] == {"transfer": MOVING.transfer}


def test_component_that_is_down_is_told_from_a_node_that_is_down(running: Node) -> None:
    """Where only the called component is missing, that is what is said, with 1."""
    names.socket_path(names.run_dir(running.state), "core/dwcp/manager").unlink()

    result = invoke(running.state, "dwcp", "status")

    assert result.exit_code == 1
    assert result.stderr == "novacronctl: core/dwcp/manager is not running\n"


def test_killed_node_is_noticed_at_once(tmp_path: Path) -> None:
    """A socket file that nobody listens on is no node, and nobody waits for a deadline."""
    found = Node(tmp_path)
    found.served.close()
    (names.socket_path(names.run_dir(tmp_path), names.ROOT)).touch()
    started_s = time.monotonic()

    result = invoke(tmp_path, "status")

    assert result.exit_code == 3
    assert time.monotonic() - started_s < 1.0


def test_hung_node_is_not_ready(running: Node) -> None:
    """A root that does not answer in time makes the node not ready."""
    running.served._handlers[names.ROOT]["status"] = lambda _body: Served.SILENCE  # type: ignore[index]

    result = invoke(running.state, "--timeout", "0.3", "status")

    assert result.exit_code == 2
    assert "did not answer status within 0.3 s" in result.stderr


def test_answer_of_another_version(running: Node) -> None:
    """A record that this version does not know is refused with advice."""
    wire = {**to_wire(running.status), "novelty": 1}
    running.served._handlers[names.ROOT]["status"] = lambda _body: wire  # type: ignore[index]

    result = invoke(running.state, "status")

    assert result.exit_code == 1
    assert "another version" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_stranger_is_told_file_and_group(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A user outside the node's group gets one sentence and exit code 4."""
    state = tmp_path_factory.mktemp("node")
    found = Node(state)
    try:
        for parent in (state.parent, state.parent.parent):
            parent.chmod(0o755)
        state.chmod(0o755)
        names.run_dir(state).chmod(0o750)
        with _as_user(65534):
            result = invoke(state, "status")
    finally:
        found.served.close()

    assert result.exit_code == 4
    assert "may not open" in result.stderr
    assert str(names.run_dir(state)) in result.stderr


@contextlib.contextmanager
def _as_user(uid: int) -> Iterator[None]:
    """Be somebody else for a while, as far as the file system is concerned."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def environment(running: Node, **more: str) -> dict[str, str]:
    """The environment of a novacronctl process."""
    return {**os.environ, "NOVACRON_SYSTEM_DATADIR": str(running.state), **more}


def test_watch_prints_a_line_per_change(running: Node) -> None:
    """Without a terminal a change is a JSON line, passing time is none, and Ctrl-C ends it well."""
    with subprocess.Popen(
        [*PROGRAM, "status", "--watch", "--interval", "0.1"],
        stdout=subprocess.PIPE,
        env=environment(running),
        text=True,
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        running.status = dataclasses.replace(running.status, verdict=Verdict.READY)
        second = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, _none = process.communicate(timeout=10)

    assert (first["verdict"], second["verdict"], rest) == ("degraded", "ready", "")
    assert process.returncode == 0


def test_watch_redraws_a_terminal(running: Node) -> None:
    """On a terminal the screen is redrawn in place, and given back at Ctrl-C."""
    text, code = _on_terminal(
        [*PROGRAM, "status", "--watch"], environment(running, TERM="xterm"), until="libvirt"
    )

    assert code == 0
    assert "\x1b[?1049h" in text
    assert text.rstrip().endswith("\x1b[?1049l\x1b[?25h") or "\x1b[?1049l" in text


@pytest.mark.parametrize(("no_color", "has_colour"), [("", True), ("1", False)])
def test_colour_on_a_terminal(running: Node, no_color: str, has_colour: bool) -> None:
    """A terminal gets colours unless NO_COLOR is set."""
    more = {"TERM": "xterm", "NO_COLOR": no_color}

    text, code = _on_terminal([*PROGRAM, "status"], environment(running, **more))

    assert code == 1
    assert ("\x1b[33mdegraded" in text) is has_colour


def test_completion_of_component_names(running: Node) -> None:
    """The shell is offered the ids that begin with what was typed, or paths after a slash."""

    def complete(word: str) -> list[str]:
        more = {
            "_NOVACRONCTL_COMPLETE": "bash_complete",
            "COMP_WORDS": f"novacronctl restart {word}",
            "COMP_CWORD": "2",
        }
        done = subprocess.run(
            PROGRAM, env=environment(running, **more), capture_output=True, text=True, check=True
        )
        return [text.partition(",")[2] for text in done.stdout.splitlines()]

    assert complete("v") == ["vm"]
    assert complete("core/d") == [
        item.path for item in COMPONENTS if item.path.startswith("core/d")
    ]


def test_status_imports_nothing_heavy(running: Node) -> None:
    """What is run most imports neither the configuration's model nor the terminal library."""
    code = (
        "import sys\n"
        "from services.ctl.main import program\n"
        "program(['status', '--json'], standalone_mode=False)\n"
        "heavy = {'pydantic', 'rich', 'asyncio', 'structlog', 'yaml', 'psutil'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(running),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr == "[]\n"


def _on_terminal(command: list[str], env: dict[str, str], until: str = "") -> tuple[str, int]:
    """Run a command on a terminal of its own; with ``until``, press Ctrl-C once that is seen."""
    master, slave = pty.openpty()
    process: subprocess.Popen[Any] = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True
    )
    os.close(slave)
    seen, has_pressed = b"", False
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        if select.select([master], [], [], 0.1)[0]:
            try:
                data = os.read(master, 65536)
            except OSError:  # EIO: the last writer has gone
                break
            seen += data
        if until and not has_pressed and re.search(until.encode(), seen):
            process.send_signal(signal.SIGINT)
            has_pressed = True
    os.close(master)
    return seen.decode("utf-8", "replace"), process.wait(10)
