"""A supervisor's process: one loop over one state machine.

Everything that can happen arrives as a readable descriptor or as the passing of the one deadline
that the loop sleeps for: news of children from the launcher, messages on the ROUTER, what commands
say on the notify socket, signals. Each becomes an event of the state machine, whose actions are
carried out at once. Nothing here waits for anything else.

What differs between the root and a nested supervisor is its Owner.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, assert_never

import zmq

from protocol import names
from protocol.messages.control import CheckReport, ComponentRecord, EventReport
from protocol.records import Plain
from protocol.transports import zeromq
from protocol.transports.curve import (
    KeyPair,
    ZapServer,
    key_pair,
    publish,
    subtree_secret,
    withdraw,
)
from supervisor.child import logs
from supervisor.core import actions, events
from supervisor.core.child import ChildState
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import CHILDREN_MAX, ChildSpec, ChildType, SupervisorSpec
from supervisor.core.supervisor import Supervisor
from supervisor.guard.guard import Guard
from supervisor.guard.issuer import Issuer
from supervisor.posix.board import Board
from supervisor.posix.state import process_state
from supervisor.runtime.commands import Commands, liveness_of
from supervisor.runtime.control import Control
from supervisor.runtime.launch import Launch, TreeSettings
from supervisor.runtime.launcher_client import (
    ANSWER_TIMEOUT_S,
    Ended,
    Launched,
    LauncherClient,
    Notice,
    Refused,
)
from supervisor.runtime.limits import Limits
from supervisor.runtime.orders import Orders
from supervisor.runtime.processes import Process, exit_reason
from supervisor.runtime.records import Records
from supervisor.runtime.trace import Recorder

_NO_KEYS = KeyPair(public=b"", secret=b"")


class Owner(Protocol):
    """Whoever runs the loop: the root, or the process of a nested supervisor."""

    def changed(self, record: ComponentRecord) -> None:
        """A component of the tree below is another one now."""

    def happened(self, report: EventReport) -> None:
        """Something happened that belongs into the journal."""

    def came_up(self) -> None:
        """Every child is up, or known to be degraded."""

    def take_signal(self, number: int) -> None:
        """A signal arrived."""

    def replace_launcher(self) -> LauncherClient | None:
        """The launcher is gone; another one to go on with, or None to end."""

    def due_s(self) -> float | None:
        """When ``turn`` is needed next."""

    def turn(self, now_s: float) -> None:
        """Do what is due; called after every wake-up."""


class _End(NamedTuple):
    """A process that is gone."""

    name: str
    process: Process
    reason: ExitReason


class SupervisorLoop:
    """Runs one supervisor.

    Args:
        spec: its children.
        path: its place in the tree.
        tree: settings of the tree.
        secret: its tree secret, 32 bytes.
        keys: its own key pair.
        owner: see Owner; set before ``run``.
        launcher: who forks its children.
        context: the ZeroMQ context to use; None to make one.
    """

    def __init__(
        self,
        spec: SupervisorSpec,
        *,
        path: str,
        tree: TreeSettings,
        secret: bytes,
        keys: KeyPair,
        launcher: LauncherClient,
        context: zeromq.Context | None = None,
    ) -> None:
        self.machine = Supervisor(spec)
        self.path = path
        self.tree = tree
        self.run_dir = Path(tree.run_dir)
        self.owner: Owner
        self.final: ExitReason | None = None
        self.processes: dict[str, Process] = {}
        self.records = Records(self)
        self.recorder = Recorder(path)
        self._secret = secret
        self._keys: dict[str, KeyPair] = {}
        self._log = logs.Logger()
        self._readers: dict[object, Callable[[], None]] = {}
        self._poller = zmq.Poller()
        self._launching: dict[str, float] = {}
        self._next_liveness_s = 0.0
        self._wake = _open_signals()
        self._launcher = launcher
        self._board = Board()
        self._free_slots = list(range(CHILDREN_MAX - 1, -1, -1))
        self.context: zeromq.Context = context or zmq.Context(io_threads=1)
        self.guard = Guard(self.run_dir, path, has_policy=tree.has_policy, is_supervisor=True)
        self._issuer = Issuer(self.run_dir, tree.identity_s)
        self._zap = ZapServer(self.context, self.guard.admit)
        self._claim = zeromq.claim(self.run_dir, path)
        publish(self.run_dir, path, keys.public)
        router = zeromq.server_socket(self.context, self.run_dir, path, keys)
        self.orders = Orders(self)
        self.control = Control(self, router)
        self.commands = Commands(self, self._board)
        self.limits = Limits(self)

    @property
    def is_launching(self) -> bool:
        """Whether a process has been asked for of which nothing is known yet."""
        return bool(self._launching)

    def watch(self, source: object, take: Callable[[], None]) -> None:
        """Call ``take`` whenever a socket or descriptor is readable."""
        self._readers[_poll_key(source)] = take
        self._poller.register(source, zmq.POLLIN)

    def unwatch(self, source: object) -> None:
        """Look at a socket or descriptor no more."""
        del self._readers[_poll_key(source)]
        self._poller.unregister(source)

    def step(self, event: events.Event) -> None:
        """Hand an event to the state machine and carry out what it wants."""
        now_s = time.monotonic()
        decided = self.machine.step(event, now_s=now_s, draw=random.random())  # noqa: S311 - jitter
        if self.recorder.is_on:
            self.recorder.add(event, decided, self.machine, now_s)
        for action in decided:
            self._carry_out(action)

    def run(self) -> ExitReason:
        """Run until the state machine finishes; returns the reason."""
        self.watch(self._launcher.channel, self._take_notices)
        self.watch(self.control.router, self.control.take)
        self.watch(self._zap.socket, self._zap.turn)
        self.watch(self.commands.notify.socket, self.commands.take)
        self.watch(self._wake, self._take_signals)
        self._launcher.preload(
            name for child in self.machine.spec.children for name in child.preload
        )
        try:
            self.step(events.Begin())
            while self.final is None:
                self._turn()
        finally:
            self._close()
        return self.final

    # -- the loop -------------------------------------------------------------------------------

    def _turn(self) -> None:
        for source, _flags in self._poller.poll(self._timeout_ms()):
            if (take := self._readers.get(source)) is not None:
                take()
        now_s = time.monotonic()
        due_s = self.machine.due_s()
        if due_s is not None and due_s <= now_s:
            self.step(events.Tick())
        if self._next_liveness_s <= now_s:
            self._check_liveness(now_s)
        if self._launching and min(self._launching.values()) + ANSWER_TIMEOUT_S <= now_s:
            self._launching.clear()
            self._log.error("launcher_hangs", timeout_s=ANSWER_TIMEOUT_S)
            self._launcher.kill()
        if (renewal_s := self._issuer.due_s()) is not None and renewal_s <= now_s:
            self._issuer.turn()
        self.commands.turn(now_s)
        self.limits.turn(now_s)
        self.orders.turn(now_s)
        self.control.turn(now_s)
        self.owner.turn(now_s)

    def _timeout_ms(self) -> int:
        due = [
            self.machine.due_s(),
            self._next_liveness_s,
            self.commands.due_s(),
            self.limits.due_s(),
            self.orders.due_s(),
            self.control.due_s(),
            self.owner.due_s(),
            self._issuer.due_s(),
            min(self._launching.values()) + ANSWER_TIMEOUT_S if self._launching else None,
        ]
        next_s = min(at for at in due if at is not None)
        return max(0, min(60_000, int((next_s - time.monotonic()) * 1000) + 1))

    # -- actions --------------------------------------------------------------------------------

    def _carry_out(self, action: actions.Action) -> None:
        match action:
            case actions.Spawn():
                self._spawn(action.spec, action.incarnation)
            case actions.AskStop():
                self.ask_stop(action.id)
            case actions.Abort():
                self._abort(action.id)
            case actions.Kill():
                self._signal(action.id, signal.SIGKILL)
            case actions.Update():
                self.control.send_update(self.processes[action.id], action.spec)
            case actions.Changed():
                self.records.report(action.id)
            case actions.Discarded():
                self.orders.discarded(action.id, action.reason)
            case actions.AllUp():
                self.owner.came_up()
            case actions.Finish():
                self.final = action.reason
            case _:
                assert_never(action)

    def _spawn(self, spec: ChildSpec, incarnation: int) -> None:
        path = names.child_path(self.path, spec.id)
        keys = self._keys_of(spec, path)
        slot = self._free_slots.pop()
        self._board.clear(slot)
        is_supervisor = spec.type is ChildType.SUPERVISOR
        speaks = spec.type is not ChildType.COMMAND
        identity = self._issuer.issue(path, incarnation) if speaks else None
        grant = self.limits.grant(spec, incarnation)
        launch = Launch(
            tree=self.tree,
            spec=spec,
            incarnation=incarnation,
            path=path,
            supervisor_path=self.path,
            slot=slot,
            public_key=keys.public,
            secret_key=keys.secret,
            identity_secret=b"" if identity is None else identity.secret,
            identity_since_s=0.0 if identity is None else identity.since_s,
            tree_secret=subtree_secret(self._secret, spec.id) if is_supervisor else b"",
            notify_socket=self.commands.begin(spec),
            cpus=grant.cpus,
            group=grant.group,
            refused=grant.refused,
        )
        self.processes[spec.id] = Process(incarnation=incarnation, slot=slot)
        self._launching[spec.id] = time.monotonic()
        self._launcher.launch(launch, self._board)

    def _keys_of(self, spec: ChildSpec, path: str) -> KeyPair:
        """A child's keys, published; a program speaks to nobody and has none."""
        if spec.type is ChildType.COMMAND:
            self.withdraw_keys(spec.id)  # of the service that it was before a reload
            return _NO_KEYS
        keys = self._keys.get(spec.id)
        if keys is None:
            keys = self._keys[spec.id] = key_pair(self._secret, spec.id)
            publish(self.run_dir, path, keys.public)
        return keys

    def withdraw_keys(self, name: str) -> None:
        """A child is none any more; nobody that has its keys is heard from now on."""
        if self._keys.pop(name, None) is not None:
            withdraw(self.run_dir, names.child_path(self.path, name))

    def ask_stop(self, name: str) -> None:
        """Ask a child to end."""
        process, spec = self.processes[name], self.machine.children[name].spec
        if process.identity is not None and self.control.send_stop(process):
            return
        number = signal.SIGTERM
        if spec.type is ChildType.COMMAND:
            number = signal.Signals[spec.stop_signal]
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)

    def _abort(self, name: str) -> None:
        """Have a hung child write its stacks and end."""
        process, path = self.processes[name], names.child_path(self.path, name)
        state = "" if process.pid is None else process_state(process.pid)
        self._log.error("child_unresponsive", child=name, state=state)
        fields: dict[str, Plain] = {"state": state}
        report = EventReport(name="component:unresponsive", component=path, fields=fields)
        self.owner.happened(report)
        process.send_signal(signal.SIGABRT)
        process.send_signal(signal.SIGCONT)  # one that is stopped takes no other signal

    def _signal(self, name: str, number: signal.Signals) -> None:
        if (process := self.processes.get(name)) is not None:
            process.send_signal(number)

    # -- what arrives ---------------------------------------------------------------------------

    def _take_notices(self) -> None:
        ended: list[_End] = []
        try:
            for notice in self._launcher.notices():
                if (end := self._take_notice(notice)) is not None:
                    ended.append(end)
                elif ended:  # what follows may be about their successors
                    self._end_processes(ended)
                    ended = []
        except ConnectionError:
            self._end_processes(ended)
            self._replace_launcher()
        else:
            self._end_processes(ended)

    def _take_notice(self, notice: Notice) -> _End | None:
        """Take in the launcher's word; returns the end that it tells of."""
        process = self.processes.get(notice.id)
        if process is None or process.incarnation != notice.incarnation:
            if isinstance(notice, Launched):
                os.close(notice.pidfd)
            return None
        self._launching.pop(notice.id, None)
        match notice:
            case Launched():
                process.pid, process.pidfd = notice.pid, notice.pidfd
                self.step(events.Spawned(notice.id, notice.incarnation, notice.pid))
                self.records.report(notice.id)
                child = self.machine.children.get(notice.id)
                if child is not None:
                    self.commands.launched(child.spec, process)
                if child is not None and child.state is ChildState.STOPPING:
                    self.ask_stop(notice.id)  # it was asked to end before it existed
            case Ended():
                words = self._board.last_words(process.slot)
                self.commands.ending(notice.id, notice.code, words)
                return _End(notice.id, process, exit_reason(notice.code, words))
            case Refused():
                reason = ExitReason(kind=ExitKind.START_FAILED, detail=notice.reason)
                return _End(notice.id, process, reason)
        return None

    def _end_processes(self, ends: list[_End]) -> None:
        """Let the state machine see all ends of one look together."""
        exits: list[events.Exited] = []
        started_s: dict[str, float] = {}
        for name, process, reason in ends:
            process.close()
            self._issuer.withdraw(names.child_path(self.path, name))
            reason = self.limits.ended(name, process, reason)
            self._free_slots.append(process.slot)
            del self.processes[name]
            self.commands.ended(name)
            child = self.machine.children.get(name)
            started_s[name] = time.monotonic() if child is None else child.started_s
            exits.append(events.Exited(name, process.incarnation, reason))
        if len(exits) == 1:
            self.step(exits[0])
        elif exits:
            self.step(events.ExitedTogether(tuple(exits)))
        for exited in exits:
            self.records.ended(exited, started_s[exited.id])

    def _replace_launcher(self) -> None:
        """The launcher is gone, and so are its children; another one takes its place."""
        self._log.error("launcher_ended", pid=self._launcher.pid)
        self.unwatch(self._launcher.channel)
        self._launcher.close()
        launcher = self.owner.replace_launcher()
        if launcher is None:
            self.final = ExitReason(kind=ExitKind.ORPHANED, detail="the launcher ended")
            return
        self._launcher = launcher
        self.watch(launcher.channel, self._take_notices)
        self._launching.clear()
        lost = ExitReason(kind=ExitKind.ORPHANED, detail="the launcher ended")
        ends: list[_End] = []
        for name, process in self.processes.items():
            words = self._board.last_words(process.slot)
            ends.append(_End(name, process, lost if words is None else exit_reason(1, words)))
        self._end_processes(ends)

    def _take_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in self._wake.recv(4096):
                if number == signal.SIGCHLD:
                    self._reap()
                else:
                    self.owner.take_signal(number)

    def _reap(self) -> None:
        """Collect what ended: the launcher's end shows on its channel, all else are strangers."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    # -- health ---------------------------------------------------------------------------------

    def _check_liveness(self, now_s: float) -> None:
        next_s = now_s + 60.0
        for name, child in list(self.machine.children.items()):
            liveness, process = liveness_of(child.spec), self.processes.get(name)
            if liveness is None or process is None or child.up_s is None:
                continue
            last_s = max(child.up_s, self._board.last_beat_s(process.slot) or 0.0)
            due_s = last_s + liveness.period_s * liveness.missed_max
            if due_s <= now_s:
                self.step(events.StoppedBeating(name, process.incarnation))
            else:
                next_s = min(next_s, due_s)
        self._next_liveness_s = next_s

    def watch_liveness(self) -> None:
        """A child has come up; look at its beats in time."""
        self._next_liveness_s = 0.0

    def check(self, timeout_s: float, done: Callable[[CheckReport], None]) -> None:
        """Ask every child how it is, now; ``done`` gets what was answered within the time."""
        self.control.check_children(timeout_s, done)

    def _close(self) -> None:
        self._launcher.close()
        self.commands.close()
        for name in tuple(self._keys):
            self.withdraw_keys(name)
        self.control.close()
        self._zap.close()
        os.close(self._claim)


def _poll_key(source: object) -> object:
    """What zmq.Poller reports for a source: its own sockets as they are, others by descriptor."""
    return source.fileno() if isinstance(source, socket.socket) else source


def _open_signals() -> socket.socket:
    """Deliver signals as bytes on a socket, so that they are one more thing to poll."""
    read, write = socket.socketpair()
    read.settimeout(0)
    write.settimeout(0)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    signal.set_wakeup_fd(write.detach(), warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what came before there was a handler
    return read
