"""A second process on the endpoint of a first one: refused, or unable to read a word."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from protocol import names
from protocol.errors import CallTimeoutError
from protocol.transports import curve, identities, zeromq
from protocol.transports.zeromq import EndpointTakenError, FixedKeys, SyncClient
from tests.system import security_attack as attack

pytestmark = pytest.mark.process

SECRET = b"\x05" * 32


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with the key of one process."""
    identities.prepare(tmp_path)
    curve.publish(tmp_path, "web", curve.key_pair(SECRET, "web").public)
    return tmp_path


@contextlib.contextmanager
def serving(run: Path, keys: curve.KeyPair) -> Iterator[list[bytes]]:
    """Serve the endpoint of ``web`` without a claim; yields all that arrives there."""
    context: zeromq.Context = zmq.Context()
    zap = curve.ZapServer(context, lambda _user_id: True)
    socket = zeromq.server_socket(context, run, "web", keys)
    seen: list[bytes] = []
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            zap.turn()
            if socket.poll(20) and (arrived := zeromq.receive_from(socket)) is not None:
                seen.append(arrived[2])
                zeromq.send(socket, [arrived[0], arrived[2]])

    thread = threading.Thread(target=serve)
    thread.start()
    yield seen
    stop.set()
    thread.join()
    socket.close()
    zap.close()
    context.term()


def test_second_process_of_ours_is_refused(run: Path) -> None:
    """A claim holds until the process that has it ends, however it ends."""
    script = (
        "import sys, pathlib; from protocol.transports import zeromq;"
        "zeromq.claim(pathlib.Path(sys.argv[1]), 'web'); print('held', flush=True);"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(EndpointTakenError, match="another process serves web"):
            zeromq.claim(run, "web")
        holder.kill()
        holder.wait(5)

    os.close(zeromq.claim(run, "web"))


def test_impostor_on_the_path_reads_nothing(run: Path) -> None:
    """Anybody with the directory can take a path; without the key that yields nothing."""
    ours = attack.issue(run, "operator/root", uid=0)
    client = SyncClient(run, keys=FixedKeys(ours))
    with serving(run, curve.key_pair(os.urandom(32), "web")) as seen:
        with pytest.raises(CallTimeoutError):
            client.call("web", "secret", {"x": 1}, timeout_s=0.5)
        client.close()

        assert seen == []


def test_connected_client_stays_with_the_true_server(run: Path) -> None:
    """Who takes the path later does not get those who are connected."""
    ours = attack.issue(run, "operator/root", uid=0)
    with serving(run, curve.key_pair(SECRET, "web")) as true_seen:
        with attack.dealer(run, "web", ours) as opened:
            attack.call(opened, "first")
            assert opened.poll(5000)
            opened.recv()
            names.socket_path(run, "web").unlink()  # as a second bind would
            with serving(run, curve.key_pair(os.urandom(32), "web")) as false_seen:
                attack.call(opened, "second")
                assert opened.poll(5000)

        assert len(true_seen) == 2
        assert false_seen == []
