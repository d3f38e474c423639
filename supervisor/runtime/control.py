"""The control channel of a supervisor: what children report, and what operators ask for.

Who speaks is known by the CURVE key, never by what a message says. A child's messages count only
with the identity of its present incarnation; every call is put to the guard.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from protocol import envelope, names
from protocol.dataclass import dataclass, field, replace
from protocol.envelope import Envelope, Kind
from protocol.errors import NovacronError, RemoteProtocolError
from protocol.messages.control import CheckReport, EventReport, Hello, TreeReport
from protocol.messages.explain import ExplainQuery
from protocol.messages.health import Health, HealthState
from protocol.messages.trace import TraceQuery
from protocol.records import Plain, from_wire, to_wire
from protocol.transports import zeromq
from protocol.transports.identities import Identity
from supervisor.child import logs
from supervisor.core import events
from supervisor.core.child import ChildState
from supervisor.core.spec import SupervisorSpec
from supervisor.guard.gate import Gate
from supervisor.runtime.caller import BusyError, Caller
from supervisor.runtime.explain import explain
from supervisor.runtime.processes import Process

if TYPE_CHECKING:
    from supervisor.runtime.loop import SupervisorLoop

# Messages taken in one turn before everything else gets its own.
_BURST_MAX = 256
# Probes that may be under way at once.
_PENDING_MAX = 64


@dataclass(slots=True)
class _Check:
    deadline_s: float
    done: Callable[[CheckReport], None]
    waiting: set[str]  # paths of children
    results: dict[str, Health] = field(default_factory=dict)


CallTaker = Callable[[Caller], None]


class Control:
    """The ROUTER of one supervisor.

    Args:
        loop: the supervisor.
        router: its bound socket.

    Attributes:
        calls: further calls, by method; each answers through ``reply`` or ``refuse``.
        gate: refuses and records.
    """

    def __init__(self, loop: SupervisorLoop, router: zeromq.Socket) -> None:
        self.router = router
        self.gate = Gate(loop.path, loop.tree.spool_dir, loop.watch)
        self.calls: dict[str, CallTaker] = {
            **loop.orders.calls,
            "explain": self._take_explain,
            "trace": self._take_trace,
        }
        self._loop = loop
        self._log = logs.Logger()
        self._checks: dict[int, _Check] = {}
        self._ids = itertools.count(1)

    # -- receiving ------------------------------------------------------------------------------

    def take(self) -> None:
        """Take in what has arrived, up to a burst."""
        for _ in range(_BURST_MAX):
            arrived = zeromq.receive_from(self.router)
            if arrived is None:
                return
            address, user_id, payload = arrived
            try:
                self._take_message(address, user_id, envelope.decode(payload))
            except RemoteProtocolError as exc:
                sender = self._loop.guard.identify(user_id)
                name = "" if sender is None else sender.name
                self.gate.refuse_malformed(name, str(exc))

    def _take_message(self, address: bytes, user_id: str, message: Envelope) -> None:
        if message.kind is Kind.CALL:
            self._take_call(address, user_id, message)
            return
        sender = self._loop.guard.identify(user_id)
        if sender is None:
            self.gate.refuse_malformed("", f"{message.name}: its identity does not count")
        elif message.kind is Kind.CAST:
            self._take_cast(address, sender, message)
        else:
            self._take_check_reply(sender.name, message)

    def _take_cast(self, identity: bytes, who: Identity, message: Envelope) -> None:
        sender, name = who.name, self._child_id(who.name)
        process = self._loop.processes.get(name)
        if process is None or process.incarnation != who.incarnation:
            return  # a word of a process that has been replaced
        if message.name == "hello":
            # Said again on the connection that follows when the child's keys are renewed.
            hello = from_wire(Hello, message.body)
            if hello.incarnation == process.incarnation:
                process.identity = identity
                if process.update is not None:
                    self.send_update(process, process.update)
                child = self._loop.machine.children.get(name)
                if child is not None and child.state is ChildState.STOPPING:
                    self.send_stop(process)  # it was asked before it could be spoken to
            return
        match message.name:
            case "ready":
                self._loop.watch_liveness()
                self._loop.step(events.BecameReady(name, process.incarnation))
            case "health":
                process.health = from_wire(Health, message.body)
                self._loop.records.report(name)
            case "event":
                self._take_event(sender, from_wire(EventReport, message.body))
            case "report":
                self._take_report(sender, from_wire(TreeReport, message.body))
            case other:
                self._log.warning("message_unknown", sender=sender, method=other)

    def _take_event(self, sender: str, report: EventReport) -> None:
        # A process speaks of itself, and a supervisor of those below it.
        if report.component == sender or report.component.startswith(f"{sender}/"):
            self._loop.owner.happened(report)

    def _take_report(self, sender: str, report: TreeReport) -> None:
        for record in report.components:
            if record.path.startswith(f"{sender}/"):
                self._loop.records.take(record)

    def _take_call(self, address: bytes, user_id: str, message: Envelope) -> None:
        verdict = self._loop.guard.judge(user_id, message.name)
        caller = Caller(address, verdict.caller, message)

        def refuse(code: str, sentence: str) -> None:
            self.refuse(caller, code, sentence)

        def proceed(outcome: Callable[[str], None]) -> None:
            self._carry_out(replace(caller, outcome=outcome))

        if verdict.code:
            self.gate.refuse(verdict, message, refuse)
        elif verdict.is_audited:
            self.gate.record(verdict, message, proceed, refuse)
        else:
            self._carry_out(caller)

    def _carry_out(self, caller: Caller) -> None:
        taker = self.calls.get(caller.message.name)
        if taker is None:
            self.refuse(caller, "protocol.no_method", f"no method {caller.message.name!r}")
            return
        try:
            taker(caller)
        except NovacronError as exc:
            self.refuse(caller, exc.code, str(exc))

    # -- sending --------------------------------------------------------------------------------

    def reply(self, caller: Caller, body: Plain) -> None:
        """Answer a call."""
        caller.outcome("")
        self._answer(caller, Kind.REPLY, "", body)

    def refuse(self, caller: Caller, code: str, sentence: str) -> None:
        """Answer a call with an error."""
        caller.outcome(code)
        self._answer(caller, Kind.FAILURE, code, sentence)

    def send_stop(self, process: Process) -> bool:
        """Ask a Python child to end; False when it can't be reached."""
        return self._send_child(process, Envelope(Kind.CAST, 0, "stop", 0, "", None))

    def send_update(self, process: Process, spec: SupervisorSpec) -> None:
        """Hand a nested supervisor its new specification, as soon as it can be spoken to."""
        update = Envelope(Kind.CAST, 0, "update", 0, "", to_wire(spec))
        process.update = None if self._send_child(process, update) else spec

    def _answer(self, caller: Caller, kind: Kind, name: str, body: Plain) -> None:
        message = caller.message
        reply = Envelope(kind, message.id, name, 0, message.correlation, body)
        self._send(caller.identity, reply)

    def _send_child(self, process: Process, message: Envelope) -> bool:
        return process.identity is not None and self._send(process.identity, message)

    def _send(self, identity: bytes, message: Envelope) -> bool:
        return zeromq.send(self.router, [identity, envelope.encode(message)])

    # -- what operators look at -----------------------------------------------------------------

    def _take_explain(self, caller: Caller) -> None:
        query = from_wire(ExplainQuery, caller.message.body or {})
        self.reply(caller, to_wire(explain(self._loop.records.view(), query.id)))

    def _take_trace(self, caller: Caller) -> None:
        query = from_wire(TraceQuery, caller.message.body or {})
        # The answer has to be there before the caller stops waiting for it.
        patience_s = max(0.0, caller.message.timeout_ms / 1000 - 0.5)
        query = replace(query, wait_s=min(query.wait_s, patience_s))
        self._loop.recorder.read(
            query, time.monotonic(), lambda page: self.reply(caller, to_wire(page))
        )

    # -- probes ---------------------------------------------------------------------------------

    def check_children(self, timeout_s: float, done: Callable[[CheckReport], None]) -> None:
        """Probe every child that runs; see SupervisorLoop.check."""
        if len(self._checks) >= _PENDING_MAX:
            raise BusyError("too many probes are under way; try again")
        number = next(self._ids)
        check = _Check(time.monotonic() + timeout_s, done, set())
        for name, child in self._loop.machine.children.items():
            path = names.child_path(self._loop.path, name)
            process = self._loop.processes.get(name)
            if child.state is not ChildState.UP or process is None:
                if child.wanted:
                    check.results[path] = _health_of(self._loop, path)
            elif process.identity is None:  # a command: its process is all that can be asked
                check.results[path] = process.health
            else:
                message = Envelope(Kind.CALL, number, "check", int(timeout_s * 1000), "", None)
                if self._send_child(process, message):
                    check.waiting.add(path)
        self._checks[number] = check
        self._settle_checks(time.monotonic())

    def _take_check_reply(self, sender: str, message: Envelope) -> None:
        check = self._checks.get(message.id)
        if check is None or sender not in check.waiting:
            return
        check.waiting.discard(sender)
        if message.kind is Kind.REPLY:
            check.results.update(from_wire(CheckReport, message.body).results)
        self._settle_checks(time.monotonic())

    def _settle_checks(self, now_s: float) -> None:
        for number, check in list(self._checks.items()):
            if check.waiting and check.deadline_s > now_s:
                continue
            del self._checks[number]
            for path in check.waiting:
                check.results[path] = Health(HealthState.UNHEALTHY, "did not answer the probe")
            check.done(CheckReport(results=check.results))

    # -- time -----------------------------------------------------------------------------------

    def due_s(self) -> float | None:
        """When ``turn`` is needed next."""
        due = [check.deadline_s for check in self._checks.values()]
        others = (self._loop.recorder.due_s(), self.gate.due_s())
        due.extend(at_s for at_s in others if at_s is not None)
        return min(due, default=None)

    def turn(self, now_s: float) -> None:
        """Answer the probes and readers whose time has come."""
        self.gate.turn(now_s)
        if self._checks:
            self._settle_checks(now_s)
        if self._loop.recorder.is_on:
            self._loop.recorder.turn(now_s)

    def close(self) -> None:
        """Close the socket; last replies and records get a moment to leave."""
        self.gate.close()
        self.router.close(linger=50)

    def _child_id(self, sender: str) -> str:
        return sender.rpartition("/")[2] if names.parent_path(sender) == self._loop.path else ""


def _health_of(loop: SupervisorLoop, path: str) -> Health:
    record = loop.records.by_path.get(path)
    return (
        Health(HealthState.UNHEALTHY, "") if record is None else Health(record.state, record.reason)
    )
