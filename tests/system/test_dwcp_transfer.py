"""Two nodes on this machine send each other real files over real TCP."""

import asyncio
import os
import stat

import psutil
import pytest

from protocol.messages.health import HealthState
from services.dwcp import reporter
from services.dwcp.model import Direction, Totals, TransferState
from tests.fixtures.fix_dwcp import MANAGER, Node, running
from tests.fixtures.fix_dwcp_relay import relaying

pytestmark = pytest.mark.process

MIB = 1 << 20


def make_file(path, size=12 * MIB + 17):
    """A file that is half noise, a quarter zeros and a quarter text."""
    content = (os.urandom(size // 2) + bytes(size // 4) + b"text" * size)[:size]
    path.write_bytes(content)
    return path


def pair(tmp_path, transports=1, **settings):
    """Two nodes."""
    return (
        Node(tmp_path / "a", transports, **settings),
        Node(tmp_path / "b", transports, **settings),
    )


@pytest.mark.parametrize("streams", [None, 1, 7])
def test_a_file_arrives_as_it_was(tmp_path, streams):
    """Content, name and mode are right, both sides say finished, and nothing is left over."""
    file = make_file(tmp_path / "disk.img")

    async def scenario():
        a, b = pair(tmp_path)
        more = {} if streams is None else {"streams": streams}
        async with running(a, b):
            transfer = await a.send(file, b.port, **more)
            sent, received = await a.wait_ended(transfer), await b.wait_ended(transfer)
            return b, sent, received

    b, sent, received = asyncio.run(scenario())

    target = b.incoming / "disk.img"
    assert target.read_bytes() == file.read_bytes()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert b.leftovers() == []
    assert sent.state is received.state is TransferState.FINISHED
    assert sent.wire_bytes == received.wire_bytes < sent.data_bytes < sent.size_bytes
    # A transfer this short may end before the last stream is open.
    assert min(streams or 2, 2) <= sent.streams <= (streams or 32)
    assert sent.congestion in ("bbr", "cubic", "reno")
    assert 0 < sent.rtt_s < 1


def test_events_metrics_and_totals_follow_a_transfer(tmp_path):
    """The journal, telemetry and the checkpoint learn what happened."""
    file = make_file(tmp_path / "x")

    async def scenario():
        a, b = pair(tmp_path)
        async with running(a, b):
            await a.wait_ended(await a.send(file, b.port))
            await b.wait_ended()
        return a, b

    a, b = asyncio.run(scenario())

    for node, direction in ((a, "send"), (b, "receive")):
        assert [name for name, _ in node.context.events] == [
            "dwcp:transfer-started",
            "dwcp:transfer-finished",
        ]
        assert node.context.events[0][1]["direction"] == direction
        names = {sample.name for sample in node.context.samples}
        assert names == {reporter.BANDWIDTH, reporter.COMPRESSION_RATIO, reporter.LATENCY}
    size = file.stat().st_size
    assert a.checkpoints[MANAGER]["state"] == {"sent_transfers": 1, "sent_bytes": size}
    assert b.checkpoints[MANAGER]["state"] == {"received_transfers": 1, "received_bytes": size}


@pytest.mark.parametrize("size", [0, 1])
def test_the_smallest_files_arrive(tmp_path, size):
    """A file without content is a file."""
    file = tmp_path / "small"
    file.write_bytes(b"x" * size)

    async def scenario():
        a, b = pair(tmp_path)
        async with running(a, b):
            status = await a.wait_ended(await a.send(file, b.port))
        assert status.error == ""
        assert (b.incoming / "small").read_bytes() == b"x" * size

    asyncio.run(scenario())


def test_holes_stay_holes(tmp_path):
    """A file of 64 GiB with two megabytes of data takes moments and as little disk."""
    file = tmp_path / "sparse"
    with file.open("wb") as out:
        out.truncate(64 << 30)
        for offset in (5 << 30, 63 << 30):
            out.seek(offset)
            out.write(os.urandom(MIB))

    async def scenario():
        a, b = pair(tmp_path)
        async with running(a, b):
            status = await a.wait_ended(await a.send(file, b.port))
        assert status.error == ""
        assert status.done_bytes == 64 << 30
        return b.incoming / "sparse"

    target = asyncio.run(scenario())

    found = target.stat()
    assert found.st_size == 64 << 30
    assert found.st_blocks * 512 < 8 * MIB
    with file.open("rb") as one, target.open("rb") as other:
        for offset in (5 << 30, 63 << 30):
            one.seek(offset)
            other.seek(offset)
            assert one.read(MIB) == other.read(MIB)


def test_many_transfers_share_the_transports(tmp_path):
    """Both transports of each node carry some, in both directions at once, and none is mixed up."""
    files = [make_file(tmp_path / f"file-{n}", 2 * MIB) for n in range(6)]

    async def scenario():
        a, b = pair(tmp_path, transports=2)
        async with running(a, b):
            there = [await a.send(file, b.port) for file in files]
            back = [await b.send(file, a.port) for file in files]
            sent = [await a.wait_ended(transfer) for transfer in there]
            sent += [await b.wait_ended(transfer) for transfer in back]
        assert {status.error for status in sent} == {""}
        assert {status.transport for status in sent} == {"transport.0", "transport.1"}
        for node in (a, b):
            for file in files:
                assert (node.incoming / file.name).read_bytes() == file.read_bytes()

    asyncio.run(scenario())


def test_a_node_sends_to_itself(tmp_path):
    """Both sides of one transfer may live in one process."""
    file = make_file(tmp_path / "x")

    async def scenario():
        node = Node(tmp_path / "a", 1)
        async with running(node):
            transfer = await node.send(file, node.port)
            await node.wait_ended(transfer)
            status = await node.wait_for(
                lambda s: s.transfers[0] if all(t.is_ended for t in s.transfers) else None
            )
            both = (await node.status(transfer)).transfers
        assert status.error == ""
        assert {s.direction for s in both} == {Direction.SEND, Direction.RECEIVE}
        assert (node.incoming / "x").read_bytes() == file.read_bytes()

    asyncio.run(scenario())


def test_sending_a_file_again_is_harmless(tmp_path):
    """The same content under the same name is delivered already."""
    file = make_file(tmp_path / "x")

    async def scenario():
        a, b = pair(tmp_path)
        async with running(a, b):
            ended = [await a.wait_ended(await a.send(file, b.port)) for _ in range(2)]
        assert [status.error for status in ended] == ["", ""]
        assert b.leftovers() == []

    asyncio.run(scenario())


def test_progress_is_told_while_it_runs(tmp_path):
    """On a slow path the status moves: bytes, rate, time left, streams, congestion control."""
    file = tmp_path / "x"
    file.write_bytes(os.urandom(4 * MIB))

    async def scenario():
        a, b = pair(tmp_path)
        async with running(a, b), relaying(b.port, rate_bytes_s=MIB) as relay:
            transfer = await a.send(file, relay.port, streams=2)
            moving = await b.wait_for(
                lambda s: next((t for t in s.transfers if t.rate_bytes_s and t.eta_s), None)
            )
            await a.call("dwcp.cancel", {"transfer": transfer})
        assert moving.state is TransferState.MOVING
        assert 0 < moving.done_bytes < moving.size_bytes
        assert moving.streams == 2

    asyncio.run(scenario())


def test_nothing_is_kept_after_a_transfer(tmp_path):
    """Descriptors and threads of the transports return to what they were."""
    file = make_file(tmp_path / "x")

    async def scenario():
        a, b = pair(tmp_path)
        async with running(a, b):
            counts = []
            for _round in range(4):
                await a.wait_ended(await a.send(file, b.port))
                await b.wait_for(lambda s: s.transfers[0] if s.transfers[0].is_ended else None)
                await settle(a, b)
                counts.append([measure(node) for node in (a, b)])
        assert counts[1] == counts[2] == counts[3]

    def measure(node):
        process = psutil.Process(node.transports["transport.0"].process.pid)
        return process.num_fds(), process.num_threads()

    async def settle(*nodes):
        for node in nodes:
            process = psutil.Process(node.transports["transport.0"].process.pid)
            for _try in range(200):
                if not process.net_connections("tcp"):
                    break
                await asyncio.sleep(0.02)

    asyncio.run(scenario())


def test_totals_survive_the_manager(tmp_path):
    """A manager that comes back starts from the checkpoint."""
    file = make_file(tmp_path / "x")

    async def scenario():
        a, b = pair(tmp_path)
        async with running(a, b):
            await a.wait_ended(await a.send(file, b.port))
        again = Node(tmp_path / "a", 1)
        again.checkpoints.update(a.checkpoints)
        async with running(again):
            return (await again.status()).totals

    assert asyncio.run(scenario()) == Totals(sent_transfers=1, sent_bytes=file.stat().st_size)


def test_what_was_counted_is_not_counted_again(tmp_path):
    """A manager that comes back right after a transfer does not find it in the transports."""
    file = make_file(tmp_path / "x")

    async def scenario():
        a, b = pair(tmp_path)
        async with running(a, b):
            await a.wait_ended(await a.send(file, b.port))
            await b.wait_ended()
            for node in (a, b):
                await node.status()  # an idle manager asks its transports, and so hands back
                await node.restart_manager()
            return (await a.status()).totals, (await b.status()).totals

    sent, received = asyncio.run(scenario())

    assert (sent.sent_transfers, received.received_transfers) == (1, 1)


def test_a_database_that_is_away_holds_nothing_up(tmp_path):
    """Without checkpoints DWCP starts, sends and stops."""
    file = make_file(tmp_path / "x")

    async def scenario():
        a, b = pair(tmp_path)
        for node in (a, b):
            del node.context._peers["data/database"]
        async with running(a, b):
            return await a.wait_ended(await a.send(file, b.port))

    assert asyncio.run(scenario()).error == ""


def test_health_names_the_transport_that_is_away(tmp_path):
    """All there is healthy, one of two is degraded, none is unhealthy."""

    async def scenario():
        node = Node(tmp_path / "a", 2)
        async with running(node):
            states = [await node.check()]
            node.transports["transport.1"].kill()
            states.append(await node.check())
            node.transports["transport.0"].kill()
            states.append(await node.check())
        return states

    states = asyncio.run(scenario())

    assert [health.state for health in states] == [
        HealthState.HEALTHY,
        HealthState.DEGRADED,
        HealthState.UNHEALTHY,
    ]
    assert "transport.1" in states[1].reason
