"""Attacks on the control sockets of a real node: refused, logged, recorded, and still ready."""

from __future__ import annotations

import grp
import json
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from protocol import names
from protocol.errors import RemoteCallError
from protocol.messages.status import Verdict
from protocol.transports.curve import KeyPair, client_pair
from protocol.transports.person import SOCKET
from tests.fixtures.fix_node import ROOT, Node, _make_directory, wait_until
from tests.system import security_attack as attack

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.redis, pytest.mark.libvirt]

# The four kinds of process that take messages: root, supervisor, asyncio service, loop.
SOCKETS = ("novacron", "core", "core/vm", "core/dwcp/transport.0")
FUZZED = 400
FUZZED_ALL = 10_000
# What a process may grow by under attack: queues and caches that have a limit.
GROWTH_BYTES_MAX = 24 << 20
NOBODY = 65_534
LAST = 1 << 50  # the id of no message that is drawn


@pytest.fixture(scope="module")
def node(used_state: Path) -> Iterator[Node]:
    """One node for all attacks: it has to survive them one after the other."""
    directory = _make_directory()
    subprocess.run(["cp", "--archive", str(used_state), str(directory / "state")], check=True)
    node = Node(directory)
    node.start()
    yield node
    node.close()
    shutil.rmtree(names.run_dir(directory / "state"), ignore_errors=True)
    shutil.rmtree(directory)


@pytest.fixture
def run(node: Node) -> Path:
    """Its run directory."""
    return names.run_dir(node.state_dir)


@pytest.fixture
def keys(run: Path) -> KeyPair:
    """Keys of a person whom the policy gives no role."""
    return attack.issue(run, "operator/mallory", uid=4_000_000, gids=())


@pytest.fixture(autouse=True)
def _still_ready(node: Node) -> Iterator[None]:
    """After every attack the node is what it was before."""
    before = {c.path: c.pid for c in node.status().components}
    yield
    status = node.status()
    assert status.verdict is Verdict.READY, status.reason
    assert {c.path: c.pid for c in status.components} == before


def audited(node: Node, actor: str) -> list[dict[str, Any]]:
    """What the audit log has of somebody's calls."""
    text = (node.state_dir / "security/audit.jsonl").read_text()
    found = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    return [line for line in found if line.get("actor") == actor]


def logged(node: Node, path: str, event: str) -> bool:
    """Whether a process has logged an event."""
    stem = names.file_stem(path)
    files = (node.state_dir / "logs").glob(f"{stem}.*")
    return any(event in file.read_text() for file in files)


def as_nobody(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Novacronctl as a stranger whose only tie is the node's group."""
    gid = str(grp.getgrnam("novacron").gr_gid)
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={gid}", "--clear-groups", "--"]
    command = [*become, str(ROOT / "bin/novacronctl"), *arguments]
    return subprocess.run(
        [*command, "--state-dir", str(node.state_dir)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )


def fuzz(node: Node, run: Path, path: str, keys: KeyPair, count: int) -> None:
    """Throw messages at a process that are none, and see that it still answers."""
    draw = random.Random(count)
    pid = node.component(path).pid if path != names.ROOT else node.pid
    assert pid is not None
    before = attack.resident_bytes(pid)

    with attack.dealer(run, path, keys) as opened:
        for number in range(count):
            opened.send_multipart(attack.garbage(draw))
            if number % 50 == 0:
                while opened.poll(0):
                    opened.recv()
        found = None
        for _ in range(5):  # a reply is dropped where we have not listened
            attack.call(opened, "status", number=LAST)
            while (found := attack.answer(opened, 2.0)) is not None and found.id != LAST:
                pass
            if found is not None:
                break
        assert found is not None  # all before it has been taken then
    assert found.name in ("supervisor.access_refused", "protocol.no_method")
    for _ in range(20):  # whoever sends this is thrown out
        with attack.dealer(run, path, keys) as other:
            attack.call(other, "status")
            assert attack.answer(other) is not None
            other.send(attack.OVERSIZED)
            assert attack.answer(other, 0.05) is None

    assert attack.resident_bytes(pid) - before < GROWTH_BYTES_MAX
    with attack.dealer(run, path, keys) as opened:
        attack.call(opened, "status")
        assert attack.answer(opened) is not None
    assert wait_until(lambda: logged(node, path, "message_refused"), "the log")


@pytest.mark.parametrize("path", SOCKETS)
def test_fuzzed_messages(node: Node, run: Path, keys: KeyPair, path: str) -> None:
    """Truncated, deep, doubled, mistyped, oversized: refused, logged, and memory is bounded."""
    fuzz(node, run, path, keys, FUZZED)


@pytest.mark.slow
@pytest.mark.parametrize("path", SOCKETS)
def test_ten_thousand_fuzzed_messages(node: Node, run: Path, keys: KeyPair, path: str) -> None:
    """The same with 10,000 for each socket."""
    fuzz(node, run, path, keys, FUZZED_ALL)


@pytest.mark.parametrize("path", SOCKETS)
def test_unknown_key_is_not_heard(run: Path, path: str) -> None:
    """A key that nobody of the tree has issued gets no connection."""
    with attack.dealer(run, path, client_pair(b"k" * 32, 0)) as opened:
        attack.call(opened, "status")

        assert attack.answer(opened, 0.5) is None


@pytest.mark.parametrize("path", SOCKETS)
def test_stranger_without_curve_is_not_heard(run: Path, path: str) -> None:
    """Plain ZeroMQ gets no connection either."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    opened = context.socket(zmq.DEALER)
    opened.setsockopt(zmq.LINGER, 0)
    opened.connect(names.endpoint(run, path))
    attack.call(opened, "status")

    found = attack.answer(opened, 0.5)

    opened.close()
    context.term()
    assert found is None


def test_person_without_a_role_may_nothing(node: Node, run: Path, keys: KeyPair) -> None:
    """Each call is refused by name of caller, method and process; the refusal is recorded."""
    with attack.dealer(run, "core", keys) as opened:
        attack.call(opened, "restart", {"id": "vm"})
        found = attack.answer(opened)

    assert found is not None
    assert found.name == "supervisor.access_refused"
    assert found.body == ("no rule of the policy lets mallory (no role) call restart of core")
    assert wait_until(lambda: logged(node, "core", "call_refused"), "the log")
    refusals = wait_until(lambda: audited(node, "operator/mallory"), "the record")
    assert {line["outcome"] for line in refusals} == {"denied"}


def test_replayed_message_is_another_call(node: Node, run: Path, keys: KeyPair) -> None:
    """The bytes of somebody's order, sent by another connection, count as the sender's own."""
    with attack.dealer(run, "core", attack.issue(run, "operator/root", uid=0)) as opened:
        order = attack.call(opened, "restart", {"id": "nothing"})
        assert attack.answer(opened) is not None

    with attack.dealer(run, "core", keys) as opened:
        opened.send(order)
        found = attack.answer(opened)

    assert found is not None
    assert found.name == "supervisor.access_refused"


def test_stolen_identity_gets_no_replies(run: Path) -> None:
    """Who takes a connected client's ZeroMQ identity is not heard, and the client is."""
    keys = attack.issue(run, "operator/root", uid=0)
    with attack.dealer(run, names.ROOT, keys, b"victim") as victim:
        attack.call(victim, "status", number=1)
        assert attack.answer(victim) is not None
        with attack.dealer(run, names.ROOT, keys, b"victim") as thief:
            attack.call(thief, "status", number=2)
            attack.call(victim, "status", number=3)

            reply, stolen = attack.answer(victim), attack.answer(thief, 0.5)

    assert reply is not None
    assert reply.id == 3
    assert stolen is None


def test_child_that_lies_speaks_for_nobody_else(node: Node, run: Path) -> None:
    """A component with good keys can't report, order or confess for others."""
    pid = node.component("core/vm").pid
    keys = attack.issue(run, "core/vm", incarnation=1)
    with attack.dealer(run, "core", keys) as opened:
        attack.cast(opened, "hello", {"pid": 1, "incarnation": 99})
        attack.cast(opened, "event", {"name": "vm:lied", "component": "security", "fields": {}})
        attack.cast(opened, "report", {"components": [{"path": "core/network"}]})
        attack.cast(opened, "stop")
        attack.call(opened, "restart", {"id": "network"})
        refused = attack.answer(opened)
    with attack.dealer(run, "core/network", keys) as opened:
        attack.cast(opened, "stop")
        attack.call(opened, "network.links")
        other = attack.answer(opened)

    assert refused is not None
    assert refused.name == "supervisor.access_refused"
    assert other is not None
    assert other.name == "supervisor.access_refused"
    assert "vm:lied" not in {record["name"] for record in node.journal()}
    assert node.component("core/vm").pid == pid
    assert wait_until(lambda: audited(node, "core/vm"), "the record")


def test_dead_incarnation_is_not_heard(node: Node, run: Path) -> None:
    """Keys that name another process of a child make no difference to its supervisor."""
    keys = attack.issue(run, "core/vm", incarnation=77)
    with attack.dealer(run, "core", keys) as opened:
        attack.cast(opened, "hello", {"pid": 1, "incarnation": 77})
        attack.cast(opened, "health", {"state": "unhealthy", "reason": "a lie"})
        attack.call(opened, "restart", {"id": "vm"})
        assert attack.answer(opened) is not None  # so the casts before it were taken

    assert node.component("core/vm").reason != "a lie"


def test_thousand_connections(node: Node, run: Path) -> None:
    """Connections that say nothing take no service from others, and are given up."""
    opened = attack.connections(names.socket_path(run, names.ROOT), 1000, socket.SOCK_STREAM)
    try:
        begin_s = time.monotonic()
        status = node.status()
        took_s = time.monotonic() - begin_s
    finally:
        for connection in opened:
            connection.close()

    assert len(opened) > 100
    assert status.verdict is Verdict.READY
    assert took_s < 5.0


def test_thousand_who_ask_for_keys(node: Node, run: Path) -> None:
    """Nobody can make the root wait, or have it make more keys than one."""
    before = attack.resident_bytes(node.pid)
    opened = attack.connections(run / SOCKET, 1000, socket.SOCK_SEQPACKET)
    try:
        assert node.status().verdict is Verdict.READY
    finally:
        for connection in opened:
            connection.close()

    assert attack.resident_bytes(node.pid) - before < GROWTH_BYTES_MAX
    listed = node.call(names.ROOT, "identity.list")["identities"]
    assert sum(entry["is_person"] for entry in listed) < 10


def test_slow_client_costs_a_bounded_amount(node: Node, run: Path) -> None:
    """Who asks without end and never listens loses replies, and nobody else does."""
    keys = attack.issue(run, "operator/root", uid=0)
    before = attack.resident_bytes(node.pid)
    with attack.dealer(run, names.ROOT, keys) as opened:
        for number in range(3000):
            attack.call(opened, "journal", {"limit": 500}, number=number + 1)
        assert node.status().verdict is Verdict.READY
        grown = attack.resident_bytes(node.pid) - before

    assert grown < 4 * GROWTH_BYTES_MAX


def test_expired_identity_is_refused_at_its_next_message(node: Node, run: Path) -> None:
    """A connection outlives its key, and is worth nothing then."""
    keys = attack.issue(run, "operator/root", uid=0, life_s=1.0)
    with attack.dealer(run, names.ROOT, keys) as opened:
        attack.call(opened, "status")
        before = attack.answer(opened)
        time.sleep(1.1)
        attack.call(opened, "status")
        after = attack.answer(opened)
    with attack.dealer(run, names.ROOT, keys) as opened:
        attack.call(opened, "status")
        again = attack.answer(opened, 0.5)

    assert before is not None
    assert before.name == ""
    assert after is not None
    assert after.name == "supervisor.identity_expired"
    assert again is None


def test_revoked_process_is_refused_everywhere_at_once(node: Node, run: Path) -> None:
    """After the answer to the revocation no process of the tree takes another message."""
    name = "operator/mallory"
    keys = attack.issue(run, name, uid=0)
    with (
        attack.dealer(run, "core", keys) as core,
        attack.dealer(run, "core/vm", keys) as vm,
        attack.dealer(run, "core/dwcp/transport.0", keys) as transport,
    ):
        opened = {core: "children", vm: "vm.list", transport: "transfer.status"}
        for connection, method in opened.items():
            attack.call(connection, method)
            first = attack.answer(connection)
            assert first is not None
            assert not first.name.startswith("supervisor.")
        node.call(names.ROOT, "identity.revoke", {"name": name})

        codes = []
        for connection, method in opened.items():
            attack.call(connection, method)
            found = attack.answer(connection)
            codes.append(None if found is None else found.name)
        node.call(names.ROOT, "identity.restore", {"name": name})
        attack.call(core, "children")
        restored = attack.answer(core)

    assert codes == ["supervisor.identity_revoked"] * 3
    assert restored is not None
    assert restored.name == ""


def test_member_of_the_group_is_an_operator_and_no_more(node: Node) -> None:
    """The kernel's word decides: the group makes an operator, and revocation takes it away."""
    looked = as_nobody(node, "status")
    refused = as_nobody(node, "identity", "revoke", "person:root")
    revoked = node.ctl("identity", "revoke", "person:nobody")
    gone = as_nobody(node, "status")
    restored = node.ctl("identity", "restore", "person:nobody")

    assert looked.returncode == 0, looked.stderr
    assert refused.returncode == 4
    assert "nobody (viewer, operator) call identity.revoke of novacron" in refused.stderr
    assert revoked.returncode == 0, revoked.stderr
    assert gone.returncode == 4
    assert "the identity of nobody is revoked" in gone.stderr
    assert restored.returncode == 0
    assert audited(node, "operator/nobody")


def test_stranger_gets_no_keys(run: Path) -> None:
    """Who is neither root nor in the group can't even open the socket."""
    ask = "import socket, sys; socket.socket(1, 5).connect(sys.argv[1])"
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    command = [*become, sys.executable, "-I", "-c", ask, str(run / SOCKET)]

    found = subprocess.run(command, capture_output=True, text=True, check=False)

    assert found.returncode != 0
    assert "Permission denied" in found.stderr


def test_nobody_revokes_himself_or_the_root(node: Node) -> None:
    """What could not be taken back is refused."""
    for name in ("operator/root", "novacron"):
        with pytest.raises(RemoteCallError, match="revoke") as caught:
            node.call(names.ROOT, "identity.revoke", {"name": name})
        assert caught.value.remote_code == "supervisor.identity"
