"""Runs a BlockingService: its control channel as one descriptor and one function to call."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import zmq

from protocol import envelope
from protocol.envelope import Envelope, Kind
from protocol.errors import NovacronError, PeerUnavailableError, RemoteProtocolError
from protocol.messages.control import CheckReport, EventReport, Hello
from protocol.messages.health import HEALTHY, Health
from protocol.messages.metrics import MetricBatch, MetricKind, MetricSample
from protocol.records import Plain, to_wire
from protocol.transports import zeromq
from protocol.transports.curve import KeyPair, ZapServer
from supervisor.child.service import BlockingCallHandler, BlockingService, Request
from supervisor.guard.gate import Gate, Outcome, unaudited
from supervisor.guard.guard import Guard
from supervisor.guard.own_keys import OwnKeys
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
        self._say_hello()

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
        self._gate.turn(time.monotonic())
        for control in (self._supervisor_before, self._supervisor):
            while control is not None and (payload := zeromq.receive(control)):
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
        if self._supervisor_before is not None:
            self._supervisor_before.close(linger=100)
        self._zap.close()
        self._gate.close()
        self._context.destroy(linger=50)

    def _open(self) -> None:
        launch = self._launch
        run = self._run = Path(launch.tree.run_dir)
        keys = KeyPair(public=launch.public_key, secret=launch.secret_key)
        self._guard = Guard(
            run, launch.path, has_policy=launch.tree.has_policy, is_supervisor=False
        )
        self._gate = Gate(launch.path, launch.tree.spool_dir, self._attach)
        self._zap = ZapServer(self._context, self._guard.admit)
        self._claim = zeromq.claim(run, launch.path)
        self._router = zeromq.server_socket(self._context, run, launch.path, keys)
        self._own_keys = OwnKeys(
            run,
            launch.identity_secret,
            since_s=launch.identity_since_s,
            life_s=launch.tree.identity_s,
        )
        self._keys = self._own_keys.current()
        self._supervisor = self._connect(launch.supervisor_path)
        self._supervisor_before: zeromq.Socket | None = None
        for socket in (self._zap.socket, self._router, self._supervisor):
            self._poller.register(zeromq.descriptor(socket), select.EPOLLIN)

    def _attach(self, descriptor: int, _take: Callable[[], None]) -> None:
        self._poller.register(descriptor, select.EPOLLIN)  # every turn looks at everything

    def _connect(self, path: str) -> zeromq.Socket:
        return zeromq.client_socket(self._context, self._run, path, self._keys)

    def _renew(self, keys: KeyPair) -> None:
        """Go on with other keys, on other connections."""
        self._keys = keys
        if self._telemetry is not None:
            self._telemetry.close(linger=100)
            self._telemetry = None
        try:
            control = self._connect(self._launch.supervisor_path)
        except PeerUnavailableError:  # it is about to end, and we with it
            return
        # An order may still be on its way to the connection before this one.
        if self._supervisor_before is not None:
            self._poller.unregister(zeromq.descriptor(self._supervisor_before))
            self._supervisor_before.close(linger=0)
        self._supervisor_before, self._supervisor = self._supervisor, control
        self._poller.register(zeromq.descriptor(control), select.EPOLLIN)
        self._say_hello()

    def _say_hello(self) -> None:
        hello = Hello(pid=os.getpid(), incarnation=self._launch.incarnation)
        message = Envelope(Kind.CAST, 0, "hello", 0, "", to_wire(hello))
        zeromq.send(self._supervisor, [envelope.encode(message)])

    def _say(self, message: Envelope) -> bool:
        """Send to the supervisor; False when the queue is full."""
        if (keys := self._own_keys.current()) is not self._keys:
            self._renew(keys)
        return zeromq.send(self._supervisor, [envelope.encode(message)])

    def _take_sigterm(self, _number: int, _frame: object) -> None:
        self._is_stopping = True

    def _take_order(self, payload: bytes) -> None:
        order = envelope.decode(payload)
        if order.name == "stop":
            self._is_stopping = True
        elif order.name == "check" and order.kind is Kind.CALL:
            report = to_wire(CheckReport(results={self.path: self._health}))
            reply = Envelope(Kind.REPLY, order.id, "", 0, order.correlation, report)
            self._say(reply)

    def _take_request(self, address: bytes, user_id: str, payload: bytes) -> None:
        try:
            message = envelope.decode(payload)
            if message.kind is not Kind.CALL and message.kind is not Kind.CAST:
                raise RemoteProtocolError("a reply to what was never asked")
        except RemoteProtocolError as exc:
            who = self._guard.identify(user_id)
            self._gate.refuse_malformed("" if who is None else who.name, str(exc))
            return
        verdict = self._guard.judge(user_id, message.name)

        def refuse(code: str, sentence: str) -> None:
            self._reply(address, message, Kind.FAILURE, code, sentence)

        def proceed(outcome: Outcome) -> None:
            kind, name, body = self._answer(message, verdict.caller)
            outcome(name if kind is Kind.FAILURE else "")
            self._reply(address, message, kind, name, body)

        if verdict.code:
            self._gate.refuse(verdict, message, refuse)
            self.measure(MetricSample(MetricKind.COUNTER, "novacron_calls_refused_total", 1.0))
        elif verdict.is_audited:
            self._gate.record(verdict, message, proceed, refuse)
        else:
            proceed(unaudited)

    def _reply(self, address: bytes, message: Envelope, kind: Kind, name: str, body: Plain) -> None:
        if message.kind is not Kind.CALL:
            return
        reply = Envelope(kind, message.id, name, 0, message.correlation, body)
        if not zeromq.send(self._router, [address, envelope.encode(reply)]):
            self._gate.note_dropped(message.name)

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
        if not self._say(message):
            self._log.warning("control_queue_full", method=method)

    def _send_metrics(self) -> None:
        if not self._samples:
            return
        batch, self._samples = MetricBatch(tuple(self._samples)), []
        try:
            if (keys := self._own_keys.current()) is not self._keys:
                self._renew(keys)
            if self._telemetry is None:
                self._telemetry = self._connect(TELEMETRY)
        except PeerUnavailableError:
            return
        message = Envelope(Kind.CAST, 0, "metrics", 0, "", to_wire(batch))
        zeromq.send(self._telemetry, [envelope.encode(message)])
