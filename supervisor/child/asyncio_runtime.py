"""Runs a Service: its asyncio loop, its sockets, and the channel to its supervisor."""

from __future__ import annotations

import asyncio
import inspect
import math
import signal
import time
from collections.abc import Awaitable, Coroutine, Mapping
from pathlib import Path

import zmq

from protocol import envelope
from protocol.envelope import Envelope, Kind
from protocol.errors import NovacronError, PeerUnavailableError, RemoteProtocolError
from protocol.messages.control import CheckReport, EventReport
from protocol.messages.health import Health, HealthState
from protocol.messages.metrics import MetricBatch, MetricKind, MetricSample
from protocol.records import Plain, to_wire
from protocol.transports import zeromq
from protocol.transports.curve import KeyPair, ZapServer
from supervisor.child import logs
from supervisor.child.asyncio_socket import AsyncSocket
from supervisor.child.deadlines import Deadlines
from supervisor.child.failure import report_failure
from supervisor.child.peers import Peers
from supervisor.child.service import CallHandler, Request, Service
from supervisor.child.supervisor_link import SupervisorLink
from supervisor.child.warm import Warmth
from supervisor.guard.gate import Gate, Outcome, unaudited
from supervisor.guard.guard import Guard, Verdict
from supervisor.guard.own_keys import OwnKeys
from supervisor.posix.board import Board
from supervisor.quiet_imports import structlog
from supervisor.runtime.launch import Launch

# Calls that run at the same time; a caller beyond them is told so at once.
CALLS_MAX = 256
METRICS_PERIOD_S = 5.0
METRICS_MAX = 2000
TELEMETRY = "telemetry"


def run_service(service: Service, launch: Launch, board: Board, warmth: Warmth) -> int:
    """Run a service until it is told to stop or fails; returns the exit code."""
    loop = warmth.loop
    with asyncio.Runner(loop_factory=None if loop is None else lambda: loop) as runner:
        return runner.run(_Runtime(service, launch, board, warmth.context).run())


class _Runtime:
    """The process around one service; the service sees it as its ServiceContext."""

    def __init__(
        self, service: Service, launch: Launch, board: Board, context: zeromq.Context | None
    ) -> None:
        self._service = service
        self._launch = launch
        self._board = board
        self._context: zeromq.Context = context or zmq.Context(io_threads=1)
        self._handlers: Mapping[str, CallHandler] = {}
        self._waiting: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._samples: list[MetricSample] = []
        self._samples_dropped = 0
        self._health = Health(HealthState.HEALTHY)
        self._is_ready = False
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

    # -- ServiceContext -------------------------------------------------------------------------

    @property
    def path(self) -> str:
        return self._launch.path

    @property
    def settings(self) -> Mapping[str, Plain]:
        return self._launch.spec.settings

    @property
    def log(self) -> structlog.typing.FilteringBoundLogger:
        return self._log

    async def call(
        self, path: str, method: str, body: Plain = None, *, timeout_s: float = 5.0
    ) -> Plain:
        return await self._peers.call(path, method, body, timeout_s)

    async def cast(self, path: str, method: str, body: Plain = None) -> bool:
        return self._peers.cast(path, method, body)

    def emit(self, name: str, **fields: Plain) -> None:
        correlation = logs.correlation_id.get()
        report = EventReport(name=name, component=self.path, fields=fields, correlation=correlation)
        self._tell("event", report)

    def measure(self, sample: MetricSample) -> None:
        if len(self._samples) >= METRICS_MAX:
            self._samples_dropped += 1
        else:
            self._samples.append(sample)

    def set_health(self, health: Health) -> None:
        if health != self._health:
            self._health = health
            if self._is_ready:  # until then the supervisor shows it as starting
                self._tell("health", health)

    def fail(self, error: BaseException) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    # -- life -----------------------------------------------------------------------------------

    async def run(self) -> int:
        """Come up, serve, go down."""
        self._loop = asyncio.get_running_loop()
        self._deadlines: Deadlines[asyncio.Task[None]] = Deadlines(self._loop, _cancel)
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_signal_handler(signal.SIGTERM, self._stop)
        self._open()
        self._beat()
        try:
            return await self._live()
        finally:
            self._close()

    async def _live(self) -> int:
        try:
            await self._until_stopped(self._come_up())
            if not self._stopped.done():
                await asyncio.wait(
                    (self._stopped, self._failed), return_when=asyncio.FIRST_COMPLETED
                )
            if self._failed.done():
                await self._failed
        # Whatever the service raises ends this process with its name on it; a supervisor decides.
        except Exception as exc:  # noqa: BLE001
            code = report_failure(self._launch, self._board, exc)
            await self._go_down()
            return code
        await self._go_down()
        return 0

    async def _come_up(self) -> None:
        self._supervisor.say_hello()
        await self._service.init(self)
        self._handlers = self._service.calls()
        self._waiting = {n for n, h in self._handlers.items() if inspect.iscoroutinefunction(h)}
        self._is_ready = True
        if self._health.state is not HealthState.HEALTHY:
            self._tell("health", self._health)
        self._tell("ready", None)
        self._loop.call_later(METRICS_PERIOD_S, self._send_metrics)

    async def _until_stopped(self, coming_up: Coroutine[None, None, None]) -> None:
        """Wait for init, but not longer than until somebody wants us to stop."""
        task = self._loop.create_task(coming_up)
        await asyncio.wait((task, self._stopped, self._failed), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        else:
            task.cancel()
            await asyncio.wait((task,))

    async def _go_down(self) -> None:
        try:
            if self._is_ready:  # a service that never came up has nothing to take down
                await self._service.terminate()
        # The process ends either way, and what went wrong must not hide why it ends.
        except Exception:  # noqa: BLE001
            self._log.exception("terminate_failed")
        for task in tuple(self._tasks):
            task.cancel()
        self._send_metrics(again=False)

    def _stop(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(None)

    def _beat(self) -> None:
        self._board.beat(self._launch.slot)
        liveness = self._launch.spec.liveness
        if liveness is not None:
            self._loop.call_later(liveness.period_s, self._beat)

    # -- sockets --------------------------------------------------------------------------------

    def _open(self) -> None:
        launch = self._launch
        run = Path(launch.tree.run_dir)
        keys = KeyPair(public=launch.public_key, secret=launch.secret_key)
        self._guard = Guard(
            run, launch.path, has_policy=launch.tree.has_policy, is_supervisor=False
        )
        self._gate = Gate(
            launch.path, launch.tree.spool_dir, self._loop.add_reader, self._turn_gate_later
        )
        self._zap = ZapServer(self._context, self._guard.admit)
        self._loop.add_reader(zeromq.descriptor(self._zap.socket), self._zap.turn)
        self._zap.turn()
        self._claim = zeromq.claim(run, launch.path)
        self._requests = zeromq.server_socket(self._context, run, launch.path, keys)
        self._router = AsyncSocket(self._loop, self._requests, self._take_request)
        self._own_keys = OwnKeys(
            run,
            launch.identity_secret,
            since_s=launch.identity_since_s,
            life_s=launch.tree.identity_s,
        )
        self._supervisor = SupervisorLink(
            self._loop, self._context, launch, self._own_keys, self._take_order
        )
        self._peers = Peers(self._loop, self._context, run, self._own_keys)

    def _close(self) -> None:
        self._peers.close()
        self._router.close()
        self._supervisor.close()
        self._loop.remove_reader(zeromq.descriptor(self._zap.socket))
        self._zap.close()
        self._gate.close()
        self._context.term()

    def _turn_gate_later(self, at_s: float) -> None:
        delay_s = max(0.0, at_s - time.monotonic())
        self._loop.call_later(delay_s, lambda: self._gate.turn(time.monotonic()))

    def _tell(self, method: str, body: object) -> None:
        """Cast to the supervisor; a full queue drops, and the log says so."""
        correlation = logs.correlation_id.get()
        message = Envelope(Kind.CAST, 0, method, 0, correlation, to_wire(body))
        if not self._supervisor.say(message):
            self._log.warning("control_queue_full", method=method)

    def _send_metrics(self, *, again: bool = True) -> None:
        if again:
            self._loop.call_later(METRICS_PERIOD_S, self._send_metrics)
        if not self._samples or self.path == TELEMETRY:
            return
        batch, self._samples = MetricBatch(tuple(self._samples)), []
        try:
            self._peers.cast(TELEMETRY, "metrics", to_wire(batch))
        except PeerUnavailableError:
            self._samples_dropped += len(batch.samples)
        if self._samples_dropped:
            self._log.warning("metrics_dropped", samples=self._samples_dropped)
            self._samples_dropped = 0

    # -- what arrives ---------------------------------------------------------------------------

    def _take_order(self, payload: bytes) -> None:
        order = envelope.decode(payload)
        if order.name == "stop":
            self._stop()
        elif order.name == "check" and order.kind is Kind.CALL:
            self._spawn(self._check(order))

    async def _check(self, order: Envelope) -> None:
        try:
            async with asyncio.timeout(order.timeout_ms / 1000):
                health = await self._service.check()
        # A probe that fails is a finding about the component, whatever it raised.
        except Exception as exc:  # noqa: BLE001
            health = Health(HealthState.UNHEALTHY, str(exc) or type(exc).__name__)
        report = to_wire(CheckReport(results={self.path: health}))
        reply = Envelope(Kind.REPLY, order.id, "", 0, order.correlation, report)
        self._supervisor.say(reply)

    def _take_request(self) -> bool:
        arrived = zeromq.take_from(self._requests)
        if arrived is None:
            return False
        address, user_id, payload = arrived
        try:
            message = envelope.decode(payload)
            if message.kind is not Kind.CALL and message.kind is not Kind.CAST:
                raise RemoteProtocolError("a reply to what was never asked")
        except RemoteProtocolError as exc:
            who = self._guard.identify(user_id)
            self._gate.refuse_malformed("" if who is None else who.name, str(exc))
            return True
        verdict = self._guard.judge(user_id, message.name)
        if verdict.code or verdict.is_audited:
            self._take_special(address, verdict, message)
        else:
            self._take_allowed(address, verdict.caller, message, unaudited)
        return True

    def _take_special(self, address: bytes, verdict: Verdict, message: Envelope) -> None:
        """A call that is refused, or has to be recorded first."""

        def refuse(code: str, sentence: str) -> None:
            self._reply(address, message, Kind.FAILURE, code, sentence)

        def proceed(outcome: Outcome) -> None:
            self._take_allowed(address, verdict.caller, message, outcome)

        if verdict.code:
            self._gate.refuse(verdict, message, refuse)
            self.measure(MetricSample(MetricKind.COUNTER, "novacron_calls_refused_total", 1.0))
        else:
            self._gate.record(verdict, message, proceed, refuse)

    def _take_allowed(
        self, address: bytes, caller: str, message: Envelope, outcome: Outcome
    ) -> None:
        handler = self._handlers.get(message.name)
        if handler is None:
            reason = f"no method {message.name!r}" if self._is_ready else "still starting"
            outcome("protocol.no_method")
            self._reply(address, message, Kind.FAILURE, "protocol.no_method", reason)
        elif len(self._tasks) >= CALLS_MAX:
            outcome("overloaded")
            self._reply(address, message, Kind.FAILURE, "overloaded", "too many calls at once")
        else:
            self._start(address, message, handler, caller, outcome)

    def _start(
        self,
        identity: bytes,
        message: Envelope,
        handler: CallHandler,
        caller: str,
        outcome: Outcome,
    ) -> None:
        """Run a handler: one that need not wait is answered at once, without a task."""
        logs.correlation_id.set(message.correlation)
        remaining_s = message.timeout_ms / 1000 if message.kind is Kind.CALL else math.inf
        request = Request(caller, message.name, message.body, remaining_s)
        try:
            result = handler(request)
            if message.name in self._waiting:
                task = self._spawn(self._serve(identity, message, result, outcome))
                if message.kind is Kind.CALL:
                    self._deadlines.add(task, remaining_s)
                return
            body = to_wire(result)
        # A bug in one method must not end the service for everybody else; it is answered.
        except Exception as exc:  # noqa: BLE001
            self._reply_error(identity, message, exc, outcome)
        else:
            outcome("")
            self._reply(identity, message, Kind.REPLY, "", body)

    async def _serve(
        self, identity: bytes, message: Envelope, work: Awaitable[Plain], outcome: Outcome
    ) -> None:
        """Wait for a handler; it is cancelled when the caller has given up by now."""
        try:
            body = to_wire(await work)
        # As in _start.
        except Exception as exc:  # noqa: BLE001
            self._reply_error(identity, message, exc, outcome)
        except asyncio.CancelledError:
            outcome("protocol.call_timeout")
            raise
        else:
            outcome("")
            self._reply(identity, message, Kind.REPLY, "", body)

    def _reply_error(
        self, identity: bytes, message: Envelope, error: Exception, outcome: Outcome
    ) -> None:
        if isinstance(error, NovacronError):
            self._log.info("call_failed", method=message.name, code=error.code, reason=str(error))
            outcome(error.code)
            self._reply(identity, message, Kind.FAILURE, error.code, str(error))
        else:
            self._log.error("call_crashed", method=message.name, exc_info=error)
            outcome("internal")
            self._reply(identity, message, Kind.FAILURE, "internal", type(error).__name__)

    def _reply(
        self, identity: bytes, message: Envelope, kind: Kind, name: str, body: Plain
    ) -> None:
        if message.kind is not Kind.CALL:
            return
        reply = Envelope(kind, message.id, name, 0, message.correlation, body)
        if not self._router.send([identity, envelope.encode(reply)]):
            self._gate.note_dropped(message.name)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._deadlines.discard(task)


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
