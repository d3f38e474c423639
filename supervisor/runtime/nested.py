"""The process of a nested supervisor: a loop below, and a channel to the supervisor above."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

from protocol import envelope
from protocol.envelope import Envelope, Kind
from protocol.errors import PeerUnavailableError
from protocol.messages.control import (
    CheckReport,
    ComponentRecord,
    EventReport,
    Hello,
    TreeReport,
)
from protocol.messages.health import HEALTHY
from protocol.records import from_wire, to_wire
from protocol.transports import zeromq
from protocol.transports.curve import KeyPair
from supervisor.core import events
from supervisor.core.reason import (
    EXIT_CRASHED,
    EXIT_CRITICAL,
    EXIT_ESCALATED,
    EXIT_NORMAL,
    ExitKind,
    ExitReason,
)
from supervisor.core.spec import SupervisorSpec
from supervisor.guard.own_keys import OwnKeys
from supervisor.posix.board import Board, LastWords
from supervisor.runtime.launch import Launch
from supervisor.runtime.launcher_client import LauncherClient
from supervisor.runtime.loop import SupervisorLoop

_EXIT_CODES = {
    ExitKind.SHUTDOWN: EXIT_NORMAL,
    ExitKind.CRITICAL: EXIT_CRITICAL,
    ExitKind.ESCALATED: EXIT_ESCALATED,
}
_CHECK_MARGIN_S = 0.2


def run_nested_supervisor(
    launch: Launch, board: Board, launcher: LauncherClient, context: zeromq.Context | None
) -> int:
    """Run a nested supervisor until it is told to stop or gives up; returns its exit code."""
    return _Nested(launch, board, launcher, context).run()


class _Nested:
    def __init__(
        self,
        launch: Launch,
        board: Board,
        launcher: LauncherClient,
        context: zeromq.Context | None,
    ) -> None:
        assert launch.spec.children is not None
        self._launch = launch
        self._board = board
        self._reports: dict[str, ComponentRecord] = {}
        self._next_beat_s = 0.0
        keys = KeyPair(public=launch.public_key, secret=launch.secret_key)
        self._loop = SupervisorLoop(
            launch.spec.children,
            path=launch.path,
            tree=launch.tree,
            secret=launch.tree_secret,
            keys=keys,
            launcher=launcher,
            context=context,
        )
        self._loop.owner = self
        self._run = Path(launch.tree.run_dir)
        self._own_keys = OwnKeys(
            self._run,
            launch.identity_secret,
            since_s=launch.identity_since_s,
            life_s=launch.tree.identity_s,
        )
        self._keys = self._own_keys.current()
        self._above = self._connect()
        self._above_before: zeromq.Socket | None = None

    def run(self) -> int:
        """Report to the supervisor above, run the loop, and leave word of how it ended."""
        gc.freeze()
        gc.disable()  # a loop without cycles of its own; the state machine's records are few
        self._say_hello()
        final = self._loop.run()
        self._send_reports()
        self._above.close(linger=100)
        if self._above_before is not None:
            self._above_before.close(linger=100)
        # One that is orphaned is about to be killed; words would make it look like a failure.
        if final.kind not in (ExitKind.SHUTDOWN, ExitKind.NORMAL, ExitKind.ORPHANED):
            origin = f"{self._launch.spec.id}/{final.origin}" if final.origin else ""
            words = LastWords(final.code or final.kind.value, final.detail, origin, final.phase)
            self._board.leave(self._launch.slot, words)
        return _EXIT_CODES.get(final.kind, EXIT_CRASHED)

    # -- Owner ----------------------------------------------------------------------------------

    def changed(self, record: ComponentRecord) -> None:
        """Pass on at the end of the turn, so that a burst travels as one message."""
        self._reports[record.path] = record

    def happened(self, report: EventReport) -> None:
        """Pass on, after the state changes that led to it."""
        self._send_reports()
        self._tell("event", report)

    def came_up(self) -> None:
        """Say ready, after the states of the children."""
        self._send_reports()
        self._tell("ready", None)

    def take_signal(self, number: int) -> None:
        """Stop on SIGTERM; the rest is for the root."""
        if number == signal.SIGTERM:
            self._stop()

    def replace_launcher(self) -> None:
        """None follows: it was the parent of this process, which the kernel ends with it."""

    def due_s(self) -> float | None:
        """When the next beat is due."""
        return self._next_beat_s

    def turn(self, now_s: float) -> None:
        """Beat, and send what has gathered."""
        if self._next_beat_s <= now_s:
            self._board.beat(self._launch.slot)
            liveness = self._launch.spec.liveness
            self._next_beat_s = now_s + (liveness.period_s if liveness else 60.0)
        self._send_reports()

    # -- the channel above ----------------------------------------------------------------------

    def _connect(self) -> zeromq.Socket:
        path = self._launch.supervisor_path
        return zeromq.client_socket(self._loop.context, self._run, path, self._keys)

    def _say_hello(self) -> None:
        above = self._above
        self._loop.watch(above, lambda: self._take_orders(above))
        hello = Hello(pid=os.getpid(), incarnation=self._launch.incarnation)
        message = Envelope(Kind.CAST, 0, "hello", 0, "", to_wire(hello))
        zeromq.send(above, [envelope.encode(message)])

    def _renew(self, keys: KeyPair) -> None:
        """Go on with other keys, on another connection."""
        self._keys, before = keys, self._above
        try:
            self._above = self._connect()
        except PeerUnavailableError:  # it is about to end, and we with it
            return
        # An order may still be on its way to the connection before this one.
        if self._above_before is not None:
            self._loop.unwatch(self._above_before)
            self._above_before.close(linger=0)
        self._above_before = before
        self._say_hello()

    def _take_orders(self, above: zeromq.Socket) -> None:
        while payload := zeromq.receive(above):
            order = envelope.decode(payload)
            match order.name:
                case "stop":
                    self._stop()
                case "update":
                    self._loop.step(events.Reconfigure(from_wire(SupervisorSpec, order.body)))
                case "check":
                    self._check(order)

    def _check(self, order: Envelope) -> None:
        def answer(report: CheckReport) -> None:
            results = {self._launch.path: HEALTHY, **report.results}
            body = to_wire(CheckReport(results=results))
            self._send(Envelope(Kind.REPLY, order.id, "", 0, order.correlation, body))

        # Our own answer must be there before those above stop waiting for it.
        self._loop.check(max(0.1, order.timeout_ms / 1000 - _CHECK_MARGIN_S), answer)

    def _stop(self) -> None:
        self._loop.step(events.StopAll(ExitReason(kind=ExitKind.SHUTDOWN)))

    def _send_reports(self) -> None:
        if self._reports:
            components = tuple(self._reports.values())
            self._reports.clear()
            self._tell("report", TreeReport(components=components))

    def _tell(self, method: str, body: object) -> None:
        self._send(Envelope(Kind.CAST, 0, method, 0, "", to_wire(body)))

    def _send(self, message: Envelope) -> None:
        if (keys := self._own_keys.current()) is not self._keys:
            self._renew(keys)
        # A supervisor above that takes nothing for so long is about to be replaced.
        zeromq.send(self._above, [envelope.encode(message)])
