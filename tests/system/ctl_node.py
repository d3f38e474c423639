"""Real endpoints of a node, served from a thread: sockets, keys and envelopes are the node's own.

What they answer is given by the test, so that a status or a refusal can be had at will.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import zmq

from protocol import envelope, names
from protocol.envelope import Envelope, Kind
from protocol.errors import NovacronError
from protocol.records import Plain
from protocol.transports import curve, identities, zeromq
from supervisor.guard.guard import Guard
from supervisor.guard.persons import Persons

Handler = Callable[[Plain], Plain]
SECRET = b"\x07" * 32


class Served:
    """The endpoints of some processes; stop with ``close``.

    Args:
        run: the run directory.
        handlers: by process path and method; one may raise, or return SILENCE.

    Attributes:
        calls: (path, method, body) in order, of everything but status and journal.
    """

    SILENCE = object()

    def __init__(self, run: Path, handlers: Mapping[str, Mapping[str, Handler]]) -> None:
        self.calls: list[tuple[str, str, Plain]] = []
        self._run = run
        self._handlers = handlers
        self._stop = threading.Event()
        run.mkdir(parents=True, exist_ok=True)
        identities.prepare(run)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def close(self) -> None:
        """Stop serving and remove nothing, like a process that was killed."""
        self._stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        guard = Guard(self._run, names.ROOT, has_policy=False, is_supervisor=True)
        zap = curve.ZapServer(context, guard.admit)
        poller = zmq.Poller()
        poller.register(zap.socket, zmq.POLLIN)
        takers: dict[int, Callable[[], None]] = {}

        def attach(descriptor: int, take: Callable[[], None]) -> None:
            takers[descriptor] = take
            poller.register(descriptor, zmq.POLLIN)

        desk = Persons(
            self._run,
            life_s=60.0,
            attach=attach,
            revoked=frozenset,
            tell=lambda _event, _name: None,
        )
        sockets: dict[zmq.Socket[bytes], str] = {}
        for path in self._handlers:
            keys = curve.key_pair(SECRET, path)
            curve.publish(self._run, path, keys.public)
            socket = zeromq.server_socket(context, self._run, path, keys)
            sockets[socket] = path
            poller.register(socket, zmq.POLLIN)
        self._ready.set()
        while not self._stop.is_set():
            for socket, _events in poller.poll(20):
                if socket in takers:
                    takers[socket]()
                elif socket is zap.socket:
                    zap.turn()
                else:
                    self._answer(socket, sockets[socket])
        for socket in sockets:
            socket.close(linger=0)
        zap.close()
        desk.close()
        context.term()

    def _answer(self, socket: zmq.Socket[bytes], path: str) -> None:
        identity, data = socket.recv_multipart()
        call = envelope.decode(data)
        if call.name not in ("status", "journal", "dwcp.status"):
            self.calls.append((path, call.name, call.body))
        try:
            body = self._handlers[path][call.name](call.body)
        except NovacronError as exc:
            reply = Envelope(Kind.FAILURE, call.id, exc.code, 0, "", str(exc))
        else:
            if body is Served.SILENCE:
                return
            reply = Envelope(Kind.REPLY, call.id, "", 0, "", body)
        zeromq.send(socket, [identity, envelope.encode(reply)])  # who asked may have gone by now
