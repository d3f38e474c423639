"""The root of a tree: boot phases, journal, status, signals, and the service manager above."""

from __future__ import annotations

import gc
import os
import signal
import time
from pathlib import Path
from typing import Protocol

from protocol import names, run_files
from protocol.dataclass import dataclass
from protocol.errors import NovacronError
from protocol.messages.control import CheckReport, ComponentRecord, EventReport
from protocol.messages.health import HealthState
from protocol.messages.journal import JournalPage, JournalQuery
from protocol.messages.status import SCHEMA, NodeStatus, PlatformStatus, Verdict
from protocol.records import Plain, from_wire, to_wire
from protocol.transports import identities
from protocol.transports.curve import KeyPair, key_pair
from supervisor.boot import phases
from supervisor.boot.phases import PhaseEnded, PhaseTracker, components_by_path
from supervisor.child import logs
from supervisor.core import events
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import FailureClass, SpecError, SupervisorSpec
from supervisor.core.supervisor import Mode
from supervisor.guard.guard import write_policy
from supervisor.posix import prctl, processes
from supervisor.runtime.caller import Caller
from supervisor.runtime.desk import Desk
from supervisor.runtime.journal import Journal
from supervisor.runtime.launch import TreeSettings
from supervisor.runtime.launcher_client import LauncherClient
from supervisor.runtime.loop import SupervisorLoop
from supervisor.runtime.notify import ServiceManager
from supervisor.runtime.status import component_status, memory_bytes, verdict_of

EXIT_OK = 0
EXIT_PREFLIGHT = 1
EXIT_CONFIGURATION = 2
EXIT_DATABASE = 3
EXIT_CORE = 4
EXIT_ESCALATED = 5
EXIT_HEALTH = 6
EXIT_WRONG_ENVIRONMENT = 78

VALIDATION_TIMEOUT_S = 5.0
# One Ctrl-C reaches us more than once where make or timeout pass it on; a person's second one
# comes later than this, and means at once.
STOP_REPEAT_S = 0.5
# The service manager's sentence takes a look at everything, and nobody reads ten in a second.
STATUS_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RootSettings:
    """What the root is told about the node.

    Attributes:
        name, version, node_id, environment, roles, state_dir: shown in the status.
        started_s: monotonic time at which the program was executed.
        phase_ends_s: monotonic ends of the phases before the tree, in order.
        shutdown_timeout_s: a stop that takes longer ends with SIGKILL.
        addresses: what listens where, for people; part of init:complete.
        is_node: whether the boot has the phases of a node; else only its end is noted.
        policy: compiled and encoded; empty for a tree without one.
    """

    name: str
    version: str
    node_id: str
    environment: str
    roles: tuple[str, ...]
    state_dir: str
    started_s: float
    phase_ends_s: tuple[float, ...]
    shutdown_timeout_s: float
    addresses: dict[str, str]
    is_node: bool = True
    policy: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """What a reload brings.

    Attributes:
        spec: the new specification.
        changed: dotted keys of the configuration.
        policy: as in RootSettings.
    """

    spec: SupervisorSpec
    changed: tuple[str, ...]
    policy: bytes = b""


class ConfigurationReader(Protocol):
    """Reads the configuration again while the root goes on."""

    def start(self) -> int | None:
        """Begin; returns the descriptor to watch, or None when it has begun already."""

    def take(self) -> Reloaded | None:
        """Take in what can be read from the descriptor; the result once it is complete.

        Raises:
            NovacronError: the new configuration can't be used.
        """


def run_root(
    spec: SupervisorSpec,
    settings: RootSettings,
    tree: TreeSettings,
    *,
    reloader: ConfigurationReader | None,
    manager: ServiceManager,
    launcher: LauncherClient,
    bystanders: frozenset[int] = frozenset(),
) -> int:
    """Run a tree until it is told to stop or fails; returns the program's exit code.

    Args:
        spec: the root's children.
        settings: see RootSettings.
        tree: settings of all processes.
        reloader: reads the configuration again at SIGHUP; None to stop then, as programs do.
        manager: the service manager above, made before anything was forked.
        launcher: forked while this process had no threads; ended with the tree.
        bystanders: children of this process that are none of the tree's business.
    """
    return _Root(spec, settings, tree, reloader, manager, launcher, bystanders).run()


class _Root:
    def __init__(
        self,
        spec: SupervisorSpec,
        settings: RootSettings,
        tree: TreeSettings,
        reloader: ConfigurationReader | None,
        manager: ServiceManager,
        launcher: LauncherClient,
        bystanders: frozenset[int],
    ) -> None:
        self._settings = settings
        self._reloader = reloader
        self._log = logs.Logger()
        self._launcher = launcher
        self._title = tree.title
        self._bystanders = bystanders
        self._manager = manager
        self._journal = Journal(boot_id=os.urandom(8).hex())
        self._phases = PhaseTracker(components_by_path(spec), settings.started_s)
        self._order = dict.fromkeys(components_by_path(spec))
        self._stop_asked_s: float | None = None
        self._stop_by_s: float | None = None
        self._next_watchdog_s = 0.0 if self._manager.watchdog_period_s else None
        self._status_due_s: float | None = None
        self._booted_s: float | None = None
        self._has_told_reload = False
        prctl.become_subreaper()
        secret = os.urandom(32)
        run = Path(tree.run_dir)
        identities.prepare(run)
        if settings.policy:
            write_policy(run, settings.policy)
        keys: KeyPair = key_pair(secret, f"{names.ROOT}\0")
        self._loop = SupervisorLoop(
            spec, path=names.ROOT, tree=tree, secret=secret, keys=keys, launcher=launcher
        )
        self._loop.owner = self
        self._desk = Desk(self._loop, life_s=tree.identity_s, note=self._note)
        self._loop.control.calls.update(
            status=self._take_status,
            journal=self._take_journal,
            boot=self._take_boot,
            **self._desk.calls,
        )

    def run(self) -> int:
        """Boot, serve, stop."""
        gc.freeze()
        gc.disable()  # the loop makes no cycles; what the state machine keeps is bounded
        for number, end_s in enumerate(self._settings.phase_ends_s):
            self._phase_ended(self._phases.end_early(number, end_s))
        self._manager.status(self._phase_sentence())
        try:
            final = self._loop.run()
        finally:
            self._desk.close()
            self._launcher.end()
            run_files.remove(self._loop.run_dir)
        return self._conclude(final)

    # -- Owner ----------------------------------------------------------------------------------

    def changed(self, record: ComponentRecord) -> None:
        """A component is another one now."""
        if not record.removed:
            self._order.setdefault(record.path)
        fields: dict[str, Plain] = {
            "state": "removed" if record.removed else record.state.value,
            "reason": record.reason,
            "pid": record.pid,
            "restarts": record.restarts,
            "phase": record.phase,
            "level": record.level,
            "failure": record.failure,
        }
        self._note("component:state", record.path, fields)
        for ended in self._phases.update(record, time.monotonic()):
            self._phase_ended(ended)
            self._manager.status(self._phase_sentence())  # at once: each phase is told
        if self._loop.machine.mode is Mode.BOOTING:
            self._sentence_changed()

    def happened(self, report: EventReport) -> None:
        """Something happened in the tree."""
        self._note_report(report)

    def came_up(self) -> None:
        """All components are settled; phase 6 asks each how it is."""
        self._manager.status(self._phase_sentence())
        self._loop.check(VALIDATION_TIMEOUT_S, self._validate)

    def take_signal(self, number: int) -> None:
        """SIGTERM and SIGINT stop, twice at once; SIGHUP reloads what can be."""
        if number == signal.SIGHUP and self._reloader is not None:
            if self._stop_asked_s is None:
                self._start_reload(self._reloader)
        elif self._stop_asked_s is None:
            self._stop(signal.Signals(number).name)
        elif time.monotonic() - self._stop_asked_s > STOP_REPEAT_S:
            self._stop_by_s = 0.0

    def replace_launcher(self) -> LauncherClient:
        """Start another one, once everything that the last one's children left has ended."""
        self._launcher.end()
        exempt = self._launcher.exempt
        processes.end_strangers(self._bystanders, exempt)
        self._launcher = LauncherClient.execute(self._title, exempt)
        return self._launcher

    def due_s(self) -> float | None:
        """The nearest of the root's own deadlines."""
        manager_s = self._manager.retry_at_s
        own = (self._stop_by_s, self._next_watchdog_s, self._status_due_s)
        due = (self._journal.due_s(), self._desk.due_s(), manager_s, *own)
        return min((at for at in due if at is not None), default=None)

    def turn(self, now_s: float) -> None:
        """Answer journal readers, feed the watchdog, end a stop that takes too long."""
        self._journal.turn(now_s)
        self._desk.turn(now_s)
        self._manager.turn(now_s)
        if self._next_watchdog_s is not None and self._next_watchdog_s <= now_s:
            assert self._manager.watchdog_period_s is not None
            self._next_watchdog_s = now_s + self._manager.watchdog_period_s
            self._manager.watchdog()
        if self._status_due_s is not None and self._status_due_s <= now_s:
            self._status_due_s = None
            is_booting = self._booted_s is None
            self._manager.status(self._phase_sentence() if is_booting else self._status_sentence())
        if self._stop_by_s is not None and self._stop_by_s <= now_s:
            self._log.error("stop_took_too_long", timeout_s=self._settings.shutdown_timeout_s)
            self._loop.final = ExitReason(kind=ExitKind.SHUTDOWN, detail="stop took too long")

    # -- boot -----------------------------------------------------------------------------------

    def _phase_ended(self, ended: PhaseEnded) -> None:
        fields: dict[str, Plain] = {
            "phase": ended.number,
            "phase_name": phases.NAMES[ended.number],
            "duration_s": round(ended.duration_s, 6),
        }
        if ended.number == phases.HEALTH:
            self._booted_s = time.monotonic() - self._settings.started_s
            fields["boot_s"] = round(self._booted_s, 6)
            fields["addresses"] = self._settings.addresses
        if self._settings.is_node or ended.number == phases.HEALTH:
            self._note(phases.EVENTS[ended.number], names.ROOT, fields)

    def _validate(self, report: CheckReport) -> None:
        if self._loop.machine.mode is not Mode.RUNNING:
            return
        for path, health in report.results.items():
            record = self._loop.records.by_path.get(path)
            is_critical = record is not None and record.failure == FailureClass.CRITICAL.value
            if health.state is HealthState.UNHEALTHY and is_critical:
                reason = ExitReason(
                    kind=ExitKind.CRITICAL,
                    detail=f"health validation: {health.reason}",
                    code="supervisor.health_validation",
                    origin=path,
                    phase=phases.HEALTH,
                )
                self._loop.step(events.StopAll(reason))
                return
        for ended in self._phases.validated(time.monotonic()):
            self._phase_ended(ended)
        self._manager.ready()
        self._manager.status(self._status_sentence())

    def _sentence_changed(self) -> None:
        if self._manager.is_present and self._status_due_s is None:
            self._status_due_s = time.monotonic() + STATUS_PAUSE_S

    def _phase_sentence(self) -> str:
        current = self._phases.current
        waiting = ", ".join(self._phases.waiting_for())
        return f"phase {current.number} {current.name}" + (f": {waiting}" if waiting else "")

    def _status_sentence(self) -> str:
        verdict, reason = self._verdict()
        return verdict.value.replace("_", " ") + (f": {reason}" if reason else "")

    # -- stop and reload ------------------------------------------------------------------------

    def _stop(self, cause: str) -> None:
        self._stop_asked_s = time.monotonic()
        self._stop_by_s = self._stop_asked_s + self._settings.shutdown_timeout_s
        self._manager.stopping()
        self._note("node:stopping", names.ROOT, {"cause": cause})
        self._loop.step(events.StopAll(ExitReason(kind=ExitKind.SHUTDOWN, detail=cause)))

    def _start_reload(self, reloader: ConfigurationReader) -> None:
        descriptor = reloader.start()
        if descriptor is not None:
            # READY=1 after a reload during the boot would say that the boot is over.
            self._has_told_reload = self._booted_s is not None
            if self._has_told_reload:
                self._manager.reloading()
            self._loop.watch(descriptor, lambda: self._take_reload(reloader, descriptor))

    def _take_reload(self, reloader: ConfigurationReader, descriptor: int) -> None:
        try:
            reloaded = reloader.take()
            if reloaded is None:
                return
            self._loop.step(events.Reconfigure(reloaded.spec))
        except (NovacronError, SpecError) as exc:
            self._log.error("reload_refused", reason=str(exc))
            self._note("node:reload-refused", names.ROOT, {"reason": str(exc)})
        else:
            self._order = dict.fromkeys(components_by_path(reloaded.spec))
            if reloaded.policy:
                write_policy(self._loop.run_dir, reloaded.policy)
                self._desk.epoch.advance()
            self._note("node:reloaded", names.ROOT, {"changed": list(reloaded.changed)})
        self._loop.unwatch(descriptor)
        if self._has_told_reload and self._stop_asked_s is None:
            self._manager.ready()

    def _conclude(self, final: ExitReason) -> int:
        code = exit_code(final)
        if code != EXIT_OK:
            event = "init:failed" if self._booted_s is None else "node:failed"
            fields: dict[str, Plain] = {
                "phase": final.phase,
                "origin": final.origin,
                "reason": final.detail,
                "code": final.code,
                "exit_code": code,
            }
            self._note(event, names.ROOT, fields)
        else:
            self._note("node:stopped", names.ROOT, {"reason": final.detail})
        return code

    # -- calls ----------------------------------------------------------------------------------

    def _take_status(self, caller: Caller) -> None:
        match caller.message.body:
            case {"memory": True}:
                with_memory = True
            case _:
                with_memory = False
        self._loop.control.reply(caller, to_wire(self._status(with_memory=with_memory)))

    def _take_journal(self, caller: Caller) -> None:
        query = from_wire(JournalQuery, caller.message.body or {})

        def answer(page: JournalPage) -> None:
            self._loop.control.reply(caller, to_wire(page))

        # The answer has to be there before the caller stops waiting for it.
        patience_s = max(0.0, caller.message.timeout_ms / 1000 - 0.5)
        if query.wait_s > patience_s:
            query = JournalQuery(since=query.since, limit=query.limit, wait_s=patience_s)
        self._journal.read(query, time.monotonic(), answer)

    def _take_boot(self, caller: Caller) -> None:
        self._loop.control.reply(caller, to_wire(self._phases.report(time.monotonic())))

    def _status(self, *, with_memory: bool) -> NodeStatus:
        now_s = time.monotonic()
        verdict, reason = self._verdict()
        components = tuple(
            component_status(
                record,
                now_s=now_s,
                memory_bytes=memory_bytes(record.pid) if with_memory and record.pid else None,
            )
            for record in self._records()
        )
        return NodeStatus(
            schema=SCHEMA,
            verdict=verdict,
            reason=reason,
            platform=self._platform(now_s),
            phase=self._phases.current,
            components=components,
        )

    def _platform(self, now_s: float) -> PlatformStatus:
        settings = self._settings
        uptime_s = now_s - settings.started_s
        return PlatformStatus(
            name=settings.name,
            version=settings.version,
            node_id=settings.node_id,
            environment=settings.environment,
            roles=settings.roles,
            pid=os.getpid(),
            state_dir=settings.state_dir,
            started_s=time.time() - uptime_s,
            uptime_s=uptime_s,
            boot_s=self._booted_s,
        )

    def _records(self) -> list[ComponentRecord]:
        known = self._loop.records.by_path
        return [known[path] for path in self._order if path in known]

    def _verdict(self) -> tuple[Verdict, str]:
        return verdict_of(self._records(), is_booted=self._booted_s is not None)

    # -- journal --------------------------------------------------------------------------------

    def _note(self, name: str, component: str, fields: dict[str, Plain]) -> None:
        self._note_report(EventReport(name=name, component=component, fields=fields))

    def _note_report(self, report: EventReport) -> None:
        record = self._journal.append(report, time.time())
        self._log.info("journal", record=to_wire(record))
        if self._booted_s is not None and report.name == "component:state":
            self._sentence_changed()


def exit_code(final: ExitReason) -> int:
    """The program's exit code for the root's end."""
    if final.kind in (ExitKind.SHUTDOWN, ExitKind.NORMAL):
        return EXIT_OK
    if final.kind is ExitKind.ESCALATED:
        return EXIT_ESCALATED
    by_phase = {phases.DATABASE: EXIT_DATABASE, phases.HEALTH: EXIT_HEALTH}
    return by_phase.get(final.phase, EXIT_CORE)
