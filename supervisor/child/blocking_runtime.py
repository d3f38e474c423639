"""Runs a BlockingService: its control channel as one descriptor and one function to call."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Mapping
from pathlib import Path

import zmq

from protocol import envelope
from protocol.envelope import Envelope, Kind
from protocol.errors import NovacronError, PeerUnavailableError, RemoteProtocolError
from protocol.messages.control import CheckReport, EventReport, Hello
from protocol.messages.health import HEALTHY, Health
from protocol.messages.metrics import MetricBatch, MetricSample
from protocol.records import Plain, to_wire
from protocol.transports import zeromq
from protocol.transports.curve import KeyDirectory, KeyPair, ZapServer
from supervisor.child.service import BlockingCallHandler, BlockingService, Request
from supervisor.posix.board import Board
from supervisor.quiet_imports import structlog
from supervisor.runtime.launch import Launch

TELEMETRY = "telemetry"
METRICS_MAX = 2000


def run_blocking_service(
    service: BlockingService, launch: Launch, board: Board, sockets: zeromq.Context | None
) -> int:
    """Run a blocking service until it is told to stop or fails; returns the exit code."""
    context = _BlockingRuntime(service.calls(), launch, board, sockets)
    try:
        service.run(context)
    finally:
        context.close()
    return 0


class _BlockingRuntime:
    """The process around one blocking service; the service sees it as its BlockingContext."""

    def __init__(
        self,
        handlers: Mapping[str, BlockingCallHandler],
        launch: Launch,
        board: Board,
        sockets: zeromq.Context | None,
    ) -> None:
        self._handlers = handlers
        self._launch = launch
        self._board = board
        self._context: zeromq.Context = sockets or zmq.Context(io_threads=1)
        self._health = HEALTHY
        self._samples: list[MetricSample] = []
        self._is_stopping = False
        self._telemetry: zeromq.Socket | None = None
        self._poller = select.epoll()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
        signal.signal(signal.SIGTERM, self._take_sigterm)
        self._open()
        self._tell("hello", Hello(pid=os.getpid(), incarnation=launch.incarnation))

    @property
    def path(self) -> str:
        return self._launch.path

    @property
    def settings(self) -> Mapping[str, Plain]:
        return self._launch.spec.settings

    @property
    def log(self) -> structlog.typing.FilteringBoundLogger:
        return self._log

    def control_fd(self) -> int:
        return self._poller.fileno()

    def turn(self) -> bool:
        self._board.beat(self._launch.slot)
        self._zap.turn()
        while payload := zeromq.receive(self._supervisor):
            self._take_order(payload)
        while arrived := zeromq.receive_from(self._router):
            self._take_request(*arrived)
        self._send_metrics()
        return not self._is_stopping

    def ready(self) -> None:
        self._tell("ready", None)

    def emit(self, name: str, **fields: Plain) -> None:
        self._tell("event", EventReport(name=name, component=self.path, fields=fields))

    def measure(self, sample: MetricSample) -> None:
        if len(self._samples) < METRICS_MAX:
            self._samples.append(sample)

    def set_health(self, health: Health) -> None:
        if health != self._health:
            self._health = health
            self._tell("health", health)

    def close(self) -> None:
        """Close all sockets."""
        self._poller.close()
        self._router.close()
        self._supervisor.close(linger=100)
        self._zap.close()
        self._context.destroy(linger=50)

    def _open(self) -> None:
        launch, run = self._launch, Path(self._launch.tree.run_dir)
        self._keys = KeyPair(public=launch.public_key, secret=launch.secret_key)
        self._zap = ZapServer(self._context, KeyDirectory(run))
        self._router = zeromq.server_socket(self._context, run, launch.path, self._keys)
        self._supervisor = zeromq.client_socket(
            self._context, run, launch.supervisor_path, self._keys
        )
        for socket in (self._zap.socket, self._router, self._supervisor):
            self._poller.register(zeromq.descriptor(socket), select.EPOLLIN)

    def _take_sigterm(self, _number: int, _frame: object) -> None:
        self._is_stopping = True

    def _take_order(self, payload: bytes) -> None:
        order = envelope.decode(payload)
        if order.name == "stop":
            self._is_stopping = True
        elif order.name == "check" and order.kind is Kind.CALL:
            report = to_wire(CheckReport(results={self.path: self._health}))
            reply = Envelope(Kind.REPLY, order.id, "", 0, order.correlation, report)
            zeromq.send(self._supervisor, [envelope.encode(reply)])

    def _take_request(self, identity: bytes, caller: str, payload: bytes) -> None:
        try:
            message = envelope.decode(payload)
        except RemoteProtocolError as exc:
            self._log.warning("message_refused", reason=str(exc), caller=caller)
            return
        kind, name, body = self._answer(message, caller)
        if message.kind is Kind.CALL:
            reply = Envelope(kind, message.id, name, 0, message.correlation, body)
            if not zeromq.send(self._router, [identity, envelope.encode(reply)]):
                self._log.warning("reply_dropped", method=message.name)

    def _answer(self, message: Envelope, caller: str) -> tuple[Kind, str, Plain]:
        handler = self._handlers.get(message.name)
        if handler is None:
            return Kind.FAILURE, "protocol.no_method", f"no method {message.name!r}"
        request = Request(caller, message.name, message.body, message.timeout_ms / 1000)
        try:
            return Kind.REPLY, "", to_wire(handler(request))
        except NovacronError as exc:
            self._log.info("call_failed", method=message.name, code=exc.code, reason=str(exc))
            return Kind.FAILURE, exc.code, str(exc)

    def _tell(self, method: str, body: object) -> None:
        message = Envelope(Kind.CAST, 0, method, 0, "", to_wire(body))
        if not zeromq.send(self._supervisor, [envelope.encode(message)]):
            self._log.warning("control_queue_full", method=method)

    def _send_metrics(self) -> None:
        if not self._samples:
            return
        batch, self._samples = MetricBatch(tuple(self._samples)), []
        try:
            if self._telemetry is None:
                run = Path(self._launch.tree.run_dir)
                self._telemetry = zeromq.client_socket(self._context, run, TELEMETRY, self._keys)
        except PeerUnavailableError:
            return
        message = Envelope(Kind.CAST, 0, "metrics", 0, "", to_wire(batch))
        zeromq.send(self._telemetry, [envelope.encode(message)])
