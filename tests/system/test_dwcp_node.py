"""DWCP inside real nodes: the supervisor's processes, the real control channel, the database."""

import os
import signal
import time

import pytest

from protocol.records import from_wire
from services.dwcp.model import DwcpStatus, TransferState
from tests.fixtures.fix_node import wait_until

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.redis]

MANAGER = "core/dwcp/manager"
TRANSPORT = "core/dwcp/transport.0"
MIB = 1 << 20


def dwcp_status(node):
    """The manager's status."""
    return from_wire(DwcpStatus, node.call(MANAGER, "dwcp.status"))


def journal_of(node, name):
    """The fields of the journal's records of a name."""
    return [record["fields"] for record in node.journal() if record["name"] == name]


def send(node, file, port):
    """Order a transfer; returns its id."""
    body = {"file": str(file), "host": "127.0.0.1", "port": port, "streams": 4}
    return node.call(MANAGER, "dwcp.send", body)["transfer"]


def wait_ended(node, transfer):
    """Wait for the end of a transfer."""

    def ended():
        found = [s for s in dwcp_status(node).transfers if s.transfer == transfer]
        return found[0] if found and all(s.is_ended for s in found) else None

    return wait_until(ended, "the transfer ends", 30.0)


def test_totals_and_the_journal_know_a_transfer(make_node):
    """The journal names it, and the totals survive the death of the manager."""
    node = make_node().start()
    file = node.directory / "x"
    file.write_bytes(os.urandom(MIB))
    transfer = send(node, file, node.ports[3])
    wait_ended(node, transfer)
    totals = wait_until(
        lambda: t if (t := dwcp_status(node).totals).received_transfers else None, "totals"
    )

    before = node.component(MANAGER).pid
    time.sleep(0.5)  # the checkpoint follows the end of a transfer within one poll
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: node.component(MANAGER).pid not in (None, before), "another manager")
    node.wait_state(MANAGER, "healthy")

    assert dwcp_status(node).totals == totals
    finished = journal_of(node, "dwcp:transfer-finished")
    assert {(f["transfer"], f["direction"]) for f in finished} == {
        (transfer, "send"),
        (transfer, "receive"),
    }


def test_a_killed_transport_is_replaced_and_its_transfer_fails(make_node):
    """SIGKILL in mid-transfer: a clear error, no unfinished file, and the next one works."""
    node = make_node().start()
    file = node.directory / "x"
    with file.open("wb") as out:  # nothing to compress, and long enough to be caught
        block = os.urandom(16 * MIB)
        for _ in range(32):
            out.write(block)
    transfer = send(node, file, node.ports[3])
    pids = [c.pid for c in node.status().components if c.path.startswith("core/dwcp/transport")]
    wait_until(
        lambda: any(s.state is TransferState.MOVING for s in dwcp_status(node).transfers),
        "the transfer moves",
    )

    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    lost = wait_ended(node, transfer)
    node.wait_state(TRANSPORT, "healthy")

    incoming = node.state_dir / "dwcp" / "incoming"
    assert lost.error in ("dwcp.transport_lost", "dwcp.peer_lost")
    wait_until(lambda: not list(incoming.glob(".*")), "no unfinished file")
    file.write_bytes(b"small")
    assert wait_ended(node, send(node, file, node.ports[3])).error == ""
    assert (incoming / "x").read_bytes() == b"small"


def test_the_command_line_says_why_it_failed(make_node):
    """A failed transfer is an exit code and a sentence, not a trace."""
    node = make_node().start()

    missing = node.ctl("dwcp", "send", str(node.directory / "none"), "127.0.0.1:9")
    file = node.directory / "x"
    file.write_bytes(b"x")
    refused = node.ctl("dwcp", "send", str(file), f"127.0.0.1:{node.ports[0]}")

    assert missing.returncode != 0
    assert "there is no file" in missing.stderr
    assert refused.returncode != 0
    assert "dwcp.peer_not_novacron" in refused.stderr


def test_transports_are_pinned(make_node):
    """Each transport runs on its own CPUs."""
    node = make_node().start()

    for component in node.status().components:
        if component.path.startswith("core/dwcp/transport"):
            assert set(os.sched_getaffinity(component.pid)) == set(component.cpus)
