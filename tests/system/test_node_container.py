"""A node as PID 1 of a container's process namespace, as root and as an unprivileged user."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocol.messages.health import HealthState
from protocol.messages.status import Verdict
from supervisor.posix.processes import children_of, descendants_of
from tests.fixtures.fix_node import BOOT_TIMEOUT_S, ROOT, STOP_TIMEOUT_S, Node, alive, wait_until

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.redis, pytest.mark.netns]

USER = "novacron"
SERVICE_USER = "novacron-data"
NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
UNPRIVILEGED = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups")
STRANGERS = 20
RECIPE = ROOT / "etc/container/Dockerfile"
IGNORED = RECIPE.with_name("Dockerfile.dockerignore")


class Container:
    """A node in a process namespace of its own.

    Attributes:
        node: its process is the one outside, which waits for the namespace to end.
        is_root: whether the node runs as root.
    """

    def __init__(self, node: Node, *, is_root: bool) -> None:
        self.node = node
        self.is_root = is_root

    def start(self, *, wait: bool = True) -> Container:
        """Start the node as the namespace's first process."""
        if not self.is_root:
            os.chown(self.node.directory, pwd.getpwnam(USER).pw_uid, -1)
        self.node.start(wait=wait, prefix=NAMESPACE + (() if self.is_root else UNPRIVILEGED))
        return self

    @property
    def init(self) -> int:
        """The host's process id of PID 1."""
        return int(wait_until(lambda: children_of(self.node.pid), "PID 1")[0])

    def run(self, script: str) -> None:
        """Run a shell script in the namespace, as an orchestrator's exec does."""
        command = ["nsenter", f"--target={self.init}", "--pid", "--mount", "sh", "-c", script]
        subprocess.run(command, check=True, timeout=10, stdin=subprocess.DEVNULL)

    def wait_end(self) -> int:
        """Wait until the namespace has ended; returns PID 1's exit code."""
        assert self.node.process is not None
        return self.node.process.wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End it at once."""
        for pid in children_of(self.node.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(params=["root", "unprivileged"])
def container(
    request: pytest.FixtureRequest, make_node: Callable[..., Node]
) -> Iterator[Container]:
    """A container whose node is ready."""
    if os.geteuid() != 0:
        pytest.skip("only root may make a process namespace")
    is_root = request.param == "root"
    # Without the capability no bridge is made on this host, even where one is asked for.
    variables = {} if is_root else {"NOVACRON_NETWORK_BRIDGE_ENABLED": "true"}
    # A state directory that was used before is root's.
    made = Container(make_node(fresh=not is_root, **variables), is_root=is_root)
    try:
        yield made.start()
    finally:
        made.kill()  # unshare ignores SIGTERM


def status_field(pid: int, name: str) -> list[str]:
    """A field of a process's status in /proc, in words."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{name}:")).split()[1:]


def is_there(pid: int) -> bool:
    """Whether a process exists, be it as a zombie."""
    return Path(f"/proc/{pid}").exists()


def test_a_node_is_pid_1(container: Container) -> None:
    """Every component is up; without CAP_NET_ADMIN the bridge is skipped and says so."""
    status = container.node.status()

    assert status_field(container.init, "NSpid")[-1] == "1"
    assert status.platform.pid == 1
    network = next(c for c in status.components if c.path == "core/network")
    others = [c for c in status.components if c.path != "core/network"]
    if container.is_root:
        assert status.verdict is Verdict.READY, status.reason
    else:
        assert status.verdict is Verdict.DEGRADED
        assert "skipped" in network.reason
        assert "CAP_NET_ADMIN" in network.reason
        states = {c.state for c in others if "network" not in c.reason}
        assert states == {HealthState.HEALTHY}


def test_the_embedded_servers_are_never_root(container: Container) -> None:
    """PostgreSQL and Redis run as the service user, or as the user that all else runs as."""
    user = str(pwd.getpwnam(SERVICE_USER if container.is_root else USER).pw_uid)
    tree = descendants_of(container.init)
    names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in tree}

    servers = [pid for pid, name in names.items() if name in ("postgres", "redis-server")]
    assert len(servers) > 5
    assert {status_field(pid, "Uid")[1] for pid in servers} == {user}
    if not container.is_root:
        assert {status_field(pid, "Uid")[1] for pid in [container.init, *tree]} == {user}


def test_strangers_are_reaped(container: Container) -> None:
    """Orphans of processes that the node never started end without leaving a zombie."""
    before = {c.path: c.pid for c in container.node.status().components}
    own = set(children_of(container.init))

    # The shell between ends at once, so that PID 1 inherits what it started.
    container.run(f"for i in $(seq {STRANGERS}); do (sleep 1 &); done")
    strangers = set(children_of(container.init)) - own
    assert len(strangers) == STRANGERS
    wait_until(lambda: not any(map(is_there, strangers)), "no zombie", 5.0)

    assert {c.path: c.pid for c in container.node.status().components} == before


def test_a_stop_of_pid_1_is_orderly(container: Container) -> None:
    """SIGTERM: exit code 0, and the namespace is empty."""
    processes = container.node.processes()

    os.kill(container.init, signal.SIGTERM)

    assert container.wait_end() == 0
    assert alive(processes) == []
    assert '"node:stopped"' in container.node.errors


def test_a_stop_takes_strangers_with_it(container: Container) -> None:
    """A stranger that would run for ever ends with PID 1, and does not keep it from ending."""
    own = set(children_of(container.init))
    container.run("(trap '' TERM; sleep 1000 &)")
    strangers = list(set(children_of(container.init)) - own)
    assert len(strangers) == 1

    os.kill(container.init, signal.SIGTERM)

    assert container.wait_end() == 0
    assert alive(strangers) == []


def test_nothing_outlives_pid_1(container: Container) -> None:
    """Kill -9 of PID 1 leaves no process, and the next container boots on the same state."""
    processes = container.node.processes()

    os.kill(container.init, signal.SIGKILL)
    assert container.wait_end() != 0
    wait_until(lambda: not alive(processes), f"left: {alive(processes)}", 1.5)
    container.start()

    assert container.node.component("data/postgres").state.value == "healthy"


def test_a_reused_process_id_does_not_keep_postgresql_down(
    container: Container,
) -> None:
    """In a new namespace the id in a stale postmaster.pid is some other process of the node."""
    launcher = min(descendants_of(container.init))
    lock = container.node.state_dir / "postgres/data/postmaster.pid"
    number = status_field(launcher, "NSpid")[-1]
    os.kill(container.init, signal.SIGKILL)
    container.wait_end()
    _old, *rest = lock.read_text().splitlines()
    lock.write_text("\n".join([number, *rest]) + "\n")

    container.start()

    assert container.node.component("data/postgres").state.value == "healthy"


def test_a_stop_during_the_boot_is_heard(make_node: Callable[..., Node]) -> None:
    """SIGTERM as soon as the node says anything: it stops, with exit code 0."""
    if os.geteuid() != 0:
        pytest.skip("only root may make a process namespace")
    made = Container(make_node(), is_root=True).start(wait=False)
    try:
        wait_until(lambda: "phase 2" in made.node.output, "phase 2", BOOT_TIMEOUT_S)

        os.kill(made.init, signal.SIGTERM)

        assert made.wait_end() == 0
    finally:
        made.kill()


def instructions(name: str) -> list[str]:
    """The arguments of all instructions of a kind in the image's recipe, continued lines joined."""
    text = re.sub(r"^ *#.*\n", "", RECIPE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [
        rest
        for word, _, rest in (line.partition(" ") for line in text.splitlines())
        if word == name
    ]


def test_the_image_is_made_of_what_is_there() -> None:
    """Everything that is copied exists and is not ignored, and build packages are the set-up's."""
    copied = [word for line in instructions("COPY") for word in line.split()[:-1]]
    sources = [name for name in copied if not name.startswith(("-", "/"))]
    let_in = [line[1:] for line in IGNORED.read_text().splitlines() if line.startswith("!")]
    built = instructions("RUN")[0].partition("--no-install-recommends")[2].partition("&&")[0]
    known = (ROOT / "etc/setup/debian-packages.txt").read_text().split()

    assert len(sources) > 8
    assert [name for name in sources if not (ROOT / name).exists()] == []
    assert sorted(sources) == sorted(let_in)
    assert [name for name in built.split() if name not in known] == []


def test_the_image_exposes_what_the_node_listens_on() -> None:
    """The ports of the default configuration, no root, and the container's environment."""
    default = (ROOT / "etc/novacron/config.default.yaml").read_text()
    keys = ("port", "metricsPort", "healthCheckPort")
    found = re.findall(rf"^ +(?:{'|'.join(keys)}): (\d+)$", default, re.MULTILINE)

    (exposed,) = instructions("EXPOSE")
    assert sorted(exposed.split()) == sorted(set(found) - {"5432", "6379"})
    assert instructions("USER") == [USER]
    (command,) = map(json.loads, instructions("ENTRYPOINT"))
    assert command == ["/opt/novacron/bin/novacron", "run", "--environment", "container"]


def test_the_image_knows_whether_its_node_lives(node: Node) -> None:
    """The recipe's health check succeeds while the node is up and fails when it is not."""
    (check,) = instructions("HEALTHCHECK")
    program, *arguments = json.loads(check.partition("CMD ")[2])
    assert program == "/opt/novacron/bin/python3"
    _api, _metrics, health, _dwcp = node.ports
    command = [sys.executable, *(word.replace("8081", str(health)) for word in arguments)]

    def says() -> int:
        return subprocess.run(command, timeout=10, check=False, capture_output=True).returncode

    assert says() == 0
    node.stop()
    assert says() != 0
