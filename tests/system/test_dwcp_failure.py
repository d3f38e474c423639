"""What goes wrong between two nodes, on the path and with files: each has its code, in time."""

import asyncio
import errno
import os
import socket
import time

import pytest

from protocol.errors import RemoteProtocolError
from services.dwcp import framing
from services.dwcp.errors import DwcpError, FileNotRegularError, PortInUseError
from services.dwcp.files import SourceFile
from services.dwcp.framing import MAGIC, Verdict
from services.dwcp.model import Direction, TransferState
from tests.fixtures.fix_dwcp import Node, running
from tests.fixtures.fix_dwcp_relay import relaying

pytestmark = pytest.mark.process

MIB = 1 << 20
STALL_S = 1.0
# More than the kernel's buffers swallow at once, on a path that takes it for seconds.
LARGE = 24 * MIB
SLOW = 6 * MIB
# The stated time, the receiver's grace, and a slow machine.
WITHIN_S = STALL_S + 4.0


def pair(tmp_path, transports=1, **settings):
    """Two nodes whose patience is short."""
    return tuple(Node(tmp_path / name, transports, stall_s=STALL_S, **settings) for name in "ab")


def make_noise(path, size=4 * MIB):
    """A file that does not compress."""
    path.write_bytes(os.urandom(size))
    return path


def free_port():
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def wait_both(a, b, transfer):
    """Both sides' end of a transfer."""
    return await a.wait_ended(transfer), await b.wait_ended(transfer)


async def wait_moving(node):
    """Wait until a transfer moves on this node."""
    return await node.wait_for(
        lambda s: next(
            (t for t in s.transfers if t.state is TransferState.MOVING and t.data_bytes), None
        )
    )


async def wait_clean(node):
    """Wait until no unfinished file is left and nothing has the file's name."""
    for _try in range(250):
        if not node.leftovers():
            break
        await asyncio.sleep(0.02)
    assert list(node.incoming.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: None, "dwcp.file_missing"),
        (lambda path: path.mkdir(), "dwcp.file_not_regular"),
        (os.mkfifo, "dwcp.file_not_regular"),
    ],
)
def test_a_file_that_can_not_be_sent_is_told_at_once(tmp_path, make, code):
    """The call fails with the code, and the status remembers it."""
    make(tmp_path / "x")

    async def scenario():
        node = Node(tmp_path / "a", 1)
        async with running(node):
            with pytest.raises(DwcpError) as caught:
                await node.send(tmp_path / "x", 1)
            [status] = (await node.status()).transfers
        return caught.value, status, node.context.events

    error, status, events = asyncio.run(scenario())

    assert error.code == status.error == code
    assert [name for name, _ in events] == ["dwcp:transfer-started", "dwcp:transfer-failed"]
    assert events[1][1]["error"] == code


def test_a_unix_socket_is_no_file(tmp_path):
    """A socket can't be opened at all, and that is said plainly."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "x"))

        with pytest.raises(FileNotRegularError):
            SourceFile(str(tmp_path / "x"))


def test_an_unknown_host_is_told_at_once(tmp_path):
    """A name that does not resolve starts nothing."""
    file = make_noise(tmp_path / "x", 10)

    async def scenario():
        node = Node(tmp_path / "a", 1)
        async with running(node):
            with pytest.raises(DwcpError) as caught:
                await node.send(file, 1, host="no..such..host")
            [status] = (await node.status()).transfers
        assert caught.value.code == status.error == "dwcp.host_unknown"

    asyncio.run(scenario())


def test_a_closed_port_is_connection_refused(tmp_path):
    """Nobody listens there."""
    file = make_noise(tmp_path / "x", 10)

    async def scenario():
        node = Node(tmp_path / "a", 1)
        async with running(node):
            status = await node.wait_ended(await node.send(file, free_port()))
        assert status.error == "dwcp.connection_refused"
        assert os.strerror(errno.ECONNREFUSED) in status.message

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("says", "code"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "dwcp.peer_not_novacron"),
        (b"220 \r\n", "dwcp.peer_not_novacron"),
        (b"", "dwcp.peer_not_novacron"),
        (MAGIC + b"\0\2" + bytes(6), "dwcp.version_mismatch"),
        (framing.pack_answer(Verdict.BUSY), "dwcp.peer_busy"),
        (framing.pack_answer(Verdict.MALFORMED), "dwcp.protocol"),
        (framing.pack_answer(Verdict.OK) + bytes(48), "dwcp.protocol"),
        (None, "dwcp.stalled"),
    ],
)
def test_peers_that_do_not_speak_dwcp_are_told_apart(tmp_path, says, code):
    """A web server, a mail server, one that hangs up, another version, a silent one."""
    file = make_noise(tmp_path / "x", 10)

    async def serve(reader, writer):
        await reader.readexactly(framing.PREAMBLE.size)
        if says is None:
            await reader.read()
        else:
            writer.write(says)
        writer.close()

    async def scenario():
        (a, _b) = pair(tmp_path)
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with running(a), server:
            started_s = time.monotonic()
            transfer = await a.send(file, server.sockets[0].getsockname()[1])
            status = await a.wait_ended(transfer)
        assert status.error == code
        assert time.monotonic() - started_s < WITHIN_S

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("faults", "codes"),
    [
        ({"flip_at": 2 * MIB}, {"dwcp.hash_mismatch"}),
        ({"cut_at": 2 * MIB}, {"dwcp.peer_lost"}),
        ({"freeze_at": 2 * MIB}, {"dwcp.stalled"}),
    ],
)
def test_a_bad_path_fails_both_sides(tmp_path, faults, codes):
    """A flipped bit, a cut and a frozen path end in time and leave nothing behind."""
    file = make_noise(tmp_path / "x")

    async def scenario():
        a, b = pair(tmp_path)
        async with running(a, b), relaying(b.port, **faults) as relay:
            transfer = await a.send(file, relay.port, streams=4)
            ended = await wait_both(a, b, transfer)
            await wait_clean(b)
        assert {status.error for status in ended} == codes
        assert [totals.failed_transfers for totals in (a.totals, b.totals)] == [1, 1]

    asyncio.run(scenario())


@pytest.mark.parametrize("canceller", ["a", "b"])
def test_either_side_cancels(tmp_path, canceller):
    """Within a second both sides say cancelled, and the receiver keeps nothing."""
    file = make_noise(tmp_path / "x", LARGE)

    async def scenario():
        a, b = pair(tmp_path)
        async with running(a, b), relaying(b.port, rate_bytes_s=SLOW) as relay:
            transfer = await a.send(file, relay.port, streams=3)
            await wait_moving(b)
            started_s = time.monotonic()
            await {"a": a, "b": b}[canceller].call("dwcp.cancel", {"transfer": transfer})
            one, other = await wait_both(a, b, transfer)
            took_s = time.monotonic() - started_s
            await wait_clean(b)
        assert one.error == other.error == "dwcp.cancelled"
        assert took_s < 2.5

    asyncio.run(scenario())


def test_a_file_that_changes_while_it_is_sent_is_thrown_away(tmp_path):
    """A mixture of two versions gets no name at the receiver."""
    file = make_noise(tmp_path / "x", LARGE)

    async def scenario():
        a, b = pair(tmp_path)
        async with running(a, b), relaying(b.port, rate_bytes_s=SLOW) as relay:
            transfer = await a.send(file, relay.port, streams=1)
            await wait_moving(b)
            with file.open("r+b") as out:
                out.write(b"changed")
            ended = await wait_both(a, b, transfer)
            await wait_clean(b)
        assert {status.error for status in ended} == {"dwcp.file_changed"}

    asyncio.run(scenario())


def test_a_full_disk_is_told_before_data_travels(tmp_path):
    """The receiver looks first."""
    file = make_noise(tmp_path / "x")

    async def scenario():
        a, b = Node(tmp_path / "a", 1), Node(tmp_path / "b", 1, free_reserve_bytes=1 << 60)
        async with running(a, b):
            ended = await wait_both(a, b, await a.send(file, b.port))
        assert {status.error for status in ended} == {"dwcp.disk_full"}
        assert {status.wire_bytes for status in ended} == {0}

    asyncio.run(scenario())


@pytest.mark.parametrize("content", [b"other", b"x" * 10])
def test_another_file_of_the_name_stays(tmp_path, content):
    """Neither one of another size nor one of the same size is overwritten."""
    file = make_noise(tmp_path / "x", 10)

    async def scenario():
        a, b = pair(tmp_path)
        async with running(a, b):
            (b.incoming / "x").write_bytes(content)
            ended = await wait_both(a, b, await a.send(file, b.port))
        assert {status.error for status in ended} == {"dwcp.target_exists"}
        assert (b.incoming / "x").read_bytes() == content
        assert b.leftovers() == []

    asyncio.run(scenario())


@pytest.mark.parametrize("victim", ["a", "b"])
def test_a_killed_transport_fails_its_transfers(tmp_path, victim):
    """Its own node says transport lost, the other one peer lost; the next transfer works."""
    file = make_noise(tmp_path / "x", LARGE)

    async def scenario():
        a, b = pair(tmp_path)
        hit, other = (a, b) if victim == "a" else (b, a)
        async with running(a, b), relaying(b.port, rate_bytes_s=SLOW) as relay:
            transfer = await a.send(file, relay.port, streams=3)
            await wait_moving(a)
            await wait_moving(b)
            hit.transports["transport.0"].kill()
            await hit.start_transport("transport.0")
            lost = await hit.wait_ended(transfer)
            peer = await other.wait_ended(transfer)
            await wait_clean(b)
            again = await a.wait_ended(await a.send(file, b.port))
        assert (lost.error, peer.error) == ("dwcp.transport_lost", "dwcp.peer_lost")
        assert again.error == ""
        assert (b.incoming / "x").read_bytes() == file.read_bytes()

    asyncio.run(scenario())


def test_another_transport_takes_over_for_a_dead_one(tmp_path):
    """New transfers avoid a process that is not there, at both ends."""
    file = make_noise(tmp_path / "x")

    async def scenario():
        a, b = pair(tmp_path, transports=2)
        async with running(a, b):
            for node in (a, b):
                node.transports["transport.0"].kill()
            status = await a.wait_ended(await a.send(file, b.port))
        assert (status.error, status.transport) == ("", "transport.1")

    asyncio.run(scenario())


def test_without_transports_sending_says_so(tmp_path):
    """A node whose transports are all away refuses, and answers peers that it is busy."""
    file = make_noise(tmp_path / "x", 10)

    async def scenario():
        a, b = pair(tmp_path)
        async with running(a, b):
            b.transports["transport.0"].kill()
            with pytest.raises(DwcpError) as caught:
                await b.send(file, a.port)
            status = await a.wait_ended(await a.send(file, b.port))
        assert caught.value.code == "dwcp.transport_lost"
        assert status.error == "dwcp.peer_busy"

    asyncio.run(scenario())


def test_a_node_that_stops_tells_its_peer(tmp_path):
    """An orderly stop ends transfers with a code of its own."""
    file = make_noise(tmp_path / "x", 4 * LARGE)

    async def scenario():
        a, b = pair(tmp_path)
        async with running(b):
            async with relaying(b.port, rate_bytes_s=4 * SLOW) as relay:
                async with running(a):
                    transfer = await a.send(file, relay.port, streams=2)
                    await wait_moving(b)
                status = await b.wait_ended(transfer)
            await wait_clean(b)
        assert status.error == "dwcp.stopping"

    asyncio.run(scenario())


def test_a_manager_that_comes_back_finds_the_transfers(tmp_path):
    """Transfers outlive the manager, and their end is still counted."""
    file = make_noise(tmp_path / "x", LARGE)

    async def scenario():
        a, b = pair(tmp_path)
        async with running(a, b), relaying(b.port, rate_bytes_s=SLOW) as relay:
            transfer = await a.send(file, relay.port, streams=2)
            await wait_moving(b)
            await b.restart_manager()
            received = await b.wait_ended(transfer)
        assert received.error == ""
        assert b.totals.received_transfers == 1
        assert (b.incoming / "x").read_bytes() == file.read_bytes()

    asyncio.run(scenario())


def test_leftovers_of_an_earlier_run_are_removed(tmp_path):
    """A node that was killed does not keep its unfinished files for ever."""

    async def scenario():
        node = Node(tmp_path / "a", 1)
        node.incoming.mkdir(parents=True)
        (node.incoming / f".x.{'ab' * 16}.part").write_bytes(b"half")
        async with running(node):
            assert node.leftovers() == []

    asyncio.run(scenario())


def test_a_port_in_use_is_critical(tmp_path):
    """A restart would not help, so it is not tried."""

    async def scenario():
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            node = Node(tmp_path / "a", 1)
            node.context._settings["port"] = taken.getsockname()[1]
            with pytest.raises(PortInUseError):
                async with running(node):
                    pass

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("method", "body", "caller", "code"),
    [
        ("dwcp.send", {"file": "x", "host": "h", "port": 1}, "operator", "dwcp.request_refused"),
        (
            "dwcp.send",
            {"file": "/x", "host": "h", "port": 1, "streams": 257},
            "operator",
            "dwcp.request_refused",
        ),
        (
            "dwcp.send",
            {"file": "/x", "host": "h", "port": 1},
            "core/vm",
            "dwcp.request_refused",
        ),
        ("dwcp.cancel", {"transfer": "ab"}, "operator", "dwcp.transfer_unknown"),
        ("dwcp.cancel", {"transfer": "ab"}, "telemetry", "dwcp.request_refused"),
        ("dwcp.status", {"transfer": "ab"}, "telemetry", "dwcp.transfer_unknown"),
        ("dwcp.status", {"other": 1}, "telemetry", "dwcp.request_refused"),
    ],
)
def test_calls_are_checked(tmp_path, method, body, caller, code):
    """Malformed requests, unknown transfers and strangers each get their code."""

    async def scenario():
        node = Node(tmp_path / "a", 1)
        async with running(node):
            with pytest.raises(DwcpError) as caught:
                await node.call(method, body, caller)
        assert caught.value.code == code

    asyncio.run(scenario())


def test_two_nodes_that_meet_are_both_sides_of_one_id(tmp_path):
    """The id is the same on both nodes, so that an operator can follow a transfer."""
    file = make_noise(tmp_path / "x", 10)

    async def scenario():
        a, b = pair(tmp_path)
        async with running(a, b):
            one, other = await wait_both(a, b, await a.send(file, b.port))
        assert one.transfer == other.transfer
        assert (one.direction, other.direction) == (Direction.SEND, Direction.RECEIVE)

    asyncio.run(scenario())


def test_bad_settings_are_named(tmp_path):
    """A manager with settings that can't work does not start."""
    node = Node(tmp_path / "a", 1, min_streams=64)

    async def scenario():
        with pytest.raises(Exception, match="streams") as caught:
            async with running(node):
                pass
        assert caught.value.code == "dwcp.settings"
        assert isinstance(caught.value.__cause__, RemoteProtocolError)

    asyncio.run(scenario())
