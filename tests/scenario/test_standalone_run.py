"""A supervisor without a node: the program of ten lines, and what an operator can do with one."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import supervisor
from protocol import names
from protocol.errors import NovacronError, PeerUnavailableError, RemoteCallError
from protocol.messages.health import HealthState
from supervisor import CriticalError, Request
from supervisor.client import Client
from supervisor.place import Place
from supervisor.posix.processes import descendants_of
from supervisor.testing.context import MemoryServiceContext

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "ten_lines.py"
PROGRAM = Path(__file__).with_name("standalone_program.py")
PATIENCE_S = 15.0


class Program:
    """A running program with a tree of its own.

    Args:
        directory: for its files.
        arguments: what is executed with Python.
    """

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.state_dir = directory / "state"
        self._output = directory / "output"
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    @property
    def output(self) -> str:
        """What it wrote."""
        return self._output.read_text(errors="replace")

    def until(self, holds: Callable[[Client], object]) -> None:
        """Wait until something is true of the tree."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            with (
                contextlib.suppress(NovacronError, KeyError),
                supervisor.connect(self.state_dir, timeout_s=2.0) as client,
            ):
                if holds(client):
                    return
            assert self.process.poll() is None, self.output
            time.sleep(0.02)
        pytest.fail(f"it did not come true:\n{self.output[-4000:]}")

    def until_ready(self) -> None:
        """Wait until all of the tree is up."""
        self.until(lambda client: client.status().verdict.value == "ready")

    def ended(self) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(PATIENCE_S)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.ended()

    def close(self) -> None:
        """Stop it, and kill what is left."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE_S)
        below = descendants_of(self.process.pid) if self.process.poll() is None else []
        self.process.kill()
        self.process.wait()
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start the test program in a mode."""
    started: list[Program] = []

    def begin(mode: str, *arguments: str) -> Program:
        state = str(tmp_path / "state")
        started.append(Program(tmp_path, str(PROGRAM), state, mode, *arguments))
        return started[-1]

    yield begin
    for program in started:
        program.close()


def pids(client: Client) -> dict[str, int | None]:
    """The pid of each component."""
    return {component.path: component.pid for component in client.status().components}


def manual(word: str) -> str:
    """The program in the manual that has a word in it."""
    text = (ROOT / "docs" / "supervisor.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return next(str(block) for block in blocks if word in block)


def test_the_manual_shows_the_example() -> None:
    """What the manual shows is the file that the next test runs."""
    assert EXAMPLE.read_text() == manual("rest_for_one")


def test_the_service_of_the_manual_works() -> None:
    """It begins where its settings say, counts, and tells the journal."""
    found: dict[str, Any] = {}
    exec(manual("class Counter"), found)
    context = MemoryServiceContext(path="counter", settings={"begin": 4})
    service = found["Counter"]()

    asyncio.run(service.init(context))

    assert service.calls()["count"](Request("operator", "count", None, 1.0)) == 5
    assert context.events == [("counter:counted", {"count": 5})]
    with pytest.raises(CriticalError):
        asyncio.run(found["Counter"]().init(MemoryServiceContext(path="counter")))


def test_the_example_of_ten_lines_runs(tmp_path: Path) -> None:
    """It serves, it ticks, its ticker follows the server it depends on, and it stops cleanly."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = tmp_path / "ten_lines.py"
    text = EXAMPLE.read_text().replace("8000", str(port))
    script.write_text(text.replace("/tmp/example", str(tmp_path / "state")))
    program = Program(tmp_path, str(script))
    try:
        program.until_ready()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
        with supervisor.connect(program.state_dir) as client:
            before = pids(client)
        assert before["web"] is not None
        os.kill(before["web"], signal.SIGKILL)
        program.until(lambda client: pids(client)["ticker"] not in (None, before["ticker"]))
        program.until_ready()
        left = descendants_of(program.process.pid)

        code = program.stop()

        assert code == 0, program.output
        assert "every_s" in program.output
        assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]
    finally:
        program.close()


def test_the_operator_of_the_manual_can_do_what_it_says(
    start: Callable[..., Program], capsys: pytest.CaptureFixture[str]
) -> None:
    """The example connects, lists, restarts and stops."""
    program = start("named", "web", "ticker")
    program.until_ready()

    exec(manual("supervisor.connect").replace("/tmp/example", str(program.state_dir)), {})

    assert "web healthy" in capsys.readouterr().out
    program.until(lambda client: pids(client)["ticker"] is None)
    assert program.stop() == 0


def test_the_pool_of_the_manual_grows(
    start: Callable[..., Program], capsys: pytest.CaptureFixture[str]
) -> None:
    """Instances get names of their own, and a child that was added can be deleted."""
    program = start("pool")
    program.until_ready()

    exec(manual("add_instance").replace("/tmp/example", str(program.state_dir)), {})

    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "jobs/job.0"
    assert "'active': 2" in printed[1]
    with supervisor.connect(program.state_dir) as client:
        assert pids(client).keys() == {"jobs", "jobs/job.0"}
    assert program.stop() == 0


def test_an_operator_sees_and_orders(start: Callable[..., Program]) -> None:
    """Status, explain, stop, start, restart and a service's own call, at every level."""
    program = start("tree")
    program.until_ready()
    with supervisor.connect(program.state_dir) as client:
        before = pids(client)

        assert set(before) == {"first", "counter", "below", "below/one", "below/two"}
        assert client.stop("below/one").state is HealthState.STOPPED
        assert pids(client)["below/one"] is None
        assert client.start("below/one").state is HealthState.HEALTHY
        assert client.restart("first").state is HealthState.HEALTHY
        assert pids(client)["first"] not in (None, before["first"])
        assert client.call("counter", "count") == 11
        explained = client.explain("below/two").child
        assert explained is not None
        assert explained.decision == "up"
        with pytest.raises(RemoteCallError):
            client.stop("nobody")
    assert program.stop(signal.SIGINT) == 0
    with pytest.raises(PeerUnavailableError):
        supervisor.connect(program.state_dir)


def test_the_command_line_of_nodes_works_too(start: Callable[..., Program]) -> None:
    """The program novacronctl finds a tree by its state directory, as it finds a node."""
    program = start("tree")
    program.until_ready()

    shown = subprocess.run(
        [ROOT / "bin" / "novacronctl", "--state-dir", program.state_dir, "tree"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert shown.returncode == 0, shown.stderr
    assert "counter" in shown.stdout


def test_hangup_reads_the_tree_again(start: Callable[..., Program], tmp_path: Path) -> None:
    """What was added starts, what was removed stops, the rest runs on; a bad tree is refused."""
    words = tmp_path / "words"
    words.write_text("one two")
    program = start("list", str(words))
    program.until_ready()
    with supervisor.connect(program.state_dir) as client:
        before = pids(client)

    words.write_text("two three")
    program.process.send_signal(signal.SIGHUP)
    program.until(lambda client: pids(client).keys() == {"two", "three"})
    words.write_text("two two")
    program.process.send_signal(signal.SIGHUP)
    program.until(lambda _client: "reload-refused" in program.output)

    with supervisor.connect(program.state_dir) as client:
        after = pids(client)
    assert after.keys() == {"two", "three"}
    assert after["two"] == before["two"]


def test_hangup_stops_where_nothing_can_be_read(start: Callable[..., Program]) -> None:
    """A program whose terminal goes away goes too, unless it has a use for the signal."""
    program = start("tree")
    program.until_ready()

    assert program.stop(signal.SIGHUP) == 0


def test_one_supervisor_per_state_directory(start: Callable[..., Program]) -> None:
    """A second one is refused and disturbs nothing; after a SIGKILL of the first one it may."""
    first = start("tree")
    first.until_ready()
    with supervisor.connect(first.state_dir) as client:
        before = pids(client)

    refused = start("tree")

    assert refused.ended() == 1
    assert "another supervisor runs on" in first.output
    with supervisor.connect(first.state_dir) as client:
        assert pids(client) == before
    first.process.kill()
    first.ended()
    start("tree").until_ready()


def test_a_directory_of_somebody_else_is_not_swept(tmp_path: Path) -> None:
    """What lies in a directory that no tree has used stays, and the tree is refused."""
    key = tmp_path / "run" / "server.key"
    key.parent.mkdir()
    key.write_text("precious")

    with pytest.raises(FileExistsError, match="holds other things"), Place(tmp_path):
        pass

    assert key.read_text() == "precious"


def test_a_run_directory_is_gone_afterwards(tmp_path: Path) -> None:
    """It is found through its link while the tree runs, and both are removed."""
    with Place(tmp_path) as place:
        (place.run_dir / "a.sock").touch()
        found = names.run_dir(tmp_path)
        assert found == place.run_dir

    assert not found.exists()
    assert not (tmp_path / "run").is_symlink()


@pytest.mark.parametrize(
    ("mode", "code", "said"),
    [
        ("job", 0, "job"),
        ("escalate", 5, "more than 3 restarts"),
        ("unstartable", 4, "no-such-program"),
        ("critical", 4, "it can't be helped"),
    ],
)
def test_the_exit_code_says_why(
    start: Callable[..., Program], mode: str, code: int, said: str
) -> None:
    """Each way to end has its code, and the log names the child."""
    program = start(mode)

    assert program.ended() == code, program.output
    assert said in program.output


def test_the_program_goes_on_afterwards(start: Callable[..., Program]) -> None:
    """``run`` gives signals and files back, and can be called again."""
    program = start("twice")
    for _ in range(2):
        program.until_ready()
        with supervisor.connect(program.state_dir) as client:
            pid = pids(client)["calm"]
        program.process.send_signal(signal.SIGTERM)
        deadline_s = time.monotonic() + PATIENCE_S
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline_s:
            time.sleep(0.02)

    assert program.ended() == 0
    assert "[0, 0] True" in program.output


@pytest.mark.parametrize("mode", ["tree", "threaded"])
def test_a_lost_launcher_is_replaced(start: Callable[..., Program], mode: str) -> None:
    """The tree comes back, with a class of the program's own file, threads or not."""
    program = start(mode)
    program.until_ready()
    with supervisor.connect(program.state_dir) as client:
        before = pids(client)
    launchers = [
        pid
        for pid in descendants_of(program.process.pid)
        if b"launcher" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]

    os.kill(launchers[0], signal.SIGKILL)

    program.until(lambda client: pids(client)["counter"] not in (None, before["counter"]))
    program.until_ready()
    with supervisor.connect(program.state_dir) as client:
        assert client.call("counter", "count") == 11
    assert program.stop() == 0


def test_describing_a_tree_imports_no_runtime() -> None:
    """A program that only describes a tree needs neither ZeroMQ nor the launcher."""
    program = (
        "import sys\n"
        "from supervisor import command, run, service, subtree\n"
        "command('a', ['x'])\n"
        "print(sorted({'zmq', 'multiprocess', 'msgpack', 'structlog'} & set(sys.modules)))"
    )

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert shown.stdout == b"[]\n"


def test_a_tree_of_programs_needs_little() -> None:
    """What takes long to import, or much memory, is for services alone."""
    program = (
        "import sys\n"
        "import supervisor.standalone, supervisor.runtime.launcher_client\n"
        "import supervisor.runtime.root\n"
        "heavy = {'asyncio', 'dataclasses', 'hashlib', 'inspect', 'logging', 'multiprocess',\n"
        "         'shutil', 'ssl', 'structlog', 'traceback', 'supervisor.child.main'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert shown.stdout == b"[]\n"
