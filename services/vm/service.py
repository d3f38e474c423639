"""The VM service: what libvirt's domains are and what happens to them.

It changes none by itself; what operators order is done by ``operations``.

One task takes in everything that happens (``Inbox``), lets the pure connection machine decide and
carries the actions out, so nothing interleaves. Blocking calls run in threads with deadlines. The
component comes up degraded where libvirt is missing or mute, and says why.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Coroutine, Iterable, Mapping
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, assert_never

from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.records import Plain, from_wire, to_wire
from services.threads import start_thread, wait_done
from services.vm import connection as machine
from services.vm.autostart.part import make_autostart
from services.vm.connection import Connection, Phase
from services.vm.documents.part import make_documents
from services.vm.domains import apply_event, changes_between
from services.vm.errors import (
    DomainNotFoundError,
    LibvirtLostError,
    LibvirtRefusedError,
    LibvirtTimeoutError,
    LibvirtUnavailableError,
)
from services.vm.inbox import DOMAIN_EVENTS_MAX, DomainChanged, Inbox, InboxListener
from services.vm.leases.locks import libvirt_lock
from services.vm.leases.part import Leases
from services.vm.model import (
    DomainEvent,
    DomainEventKind,
    DomainList,
    DomainRecord,
    DomainState,
    VmSettings,
    VmStatus,
)
from services.vm.operations.part import Operations
from services.vm.session import AsyncSession
from services.vm.statistics.part import Statistics
from supervisor.child.service import CallHandler, Request, Service, ServiceContext

if TYPE_CHECKING:
    from services.vm.libvirt_adapter import LibvirtSession

# A domain takes some 250 bytes on the wire and a message holds 1 MiB.
DOMAINS_LISTED_MAX = 2048
# A libvirtd that was restarted first shows its guests as they were, then finds out in its own time
# which of them died meanwhile, and sends no event for those (seen with 9.0: 30 to 80 ms later, more
# under load). So all is read again a few times after connecting, and then now and then.
REREAD_PAUSES_S = (1.0, 5.0, 15.0)
REREAD_PERIOD_S = 60.0
_ENDS = (DomainEventKind.STOPPED, DomainEventKind.CRASHED)
_RUNS_AGAIN = (DomainEventKind.STARTED, DomainEventKind.RESUMED)


class VmService(Service):
    """``core/vm``: calls ``vm.list`` and ``vm.status``, and those of ``operations``."""

    async def init(self, context: ServiceContext) -> None:
        """Begin to connect; return once connected or once it is clear that it takes longer.

        Raises:
            RemoteProtocolError: the settings are not those of VmSettings.
        """
        self._context = context
        self._settings = from_wire(VmSettings, context.settings)
        self._connection = Connection(
            retry_initial_s=self._settings.retry_initial_s, retry_max_s=self._settings.retry_max_s
        )
        self._session: AsyncSession | None = None
        self._hypervisor, self._version = "", ""
        self._disk_lock = ""
        self._domains: dict[str, DomainRecord] = {}
        self._has_read = False
        self._listed: tuple[DomainList, Plain] | None = None
        self._counted: Counter[DomainState] = Counter()
        self._inbox = Inbox()
        self._unread: deque[str] = deque()  # at most one entry for each domain
        self._early: deque[DomainEvent] = deque(maxlen=DOMAIN_EVENTS_MAX)
        self._health: Health | None = None
        self._announced = 0
        self._is_stopping = False
        self._settled = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leases = Leases(
            context,
            self._settings,
            changed=self._publish_health,
            has_active=lambda: any(d.state.is_active for d in self._domains.values()),
        )
        self._operations = Operations(
            context,
            libvirt_uri=self._settings.libvirt_uri,
            call_timeout_s=self._settings.call_timeout_s,
            image_dirs=self._settings.image_dirs,
            leases=self._leases,
            changed=self._publish_health,
            migration=self._settings.migration,
            node_id=self._settings.node_id,
            state_dir=self._settings.state_dir,
        )
        self._documents = make_documents(
            context, self._settings, self._leases, self._publish_health
        )
        self._statistics = Statistics(
            context,
            libvirt_uri=self._settings.libvirt_uri,
            interval_s=self._settings.statistics_interval_s,
            timeout_s=self._settings.call_timeout_s,
            has_running=lambda: any(d.state.is_active for d in self._domains.values()),
            changed=self._publish_health,
        )
        self._autostart = make_autostart(
            context, self._settings, calls=self.calls, changed=self._publish_health
        )
        self._inbox.put(machine.RetryDue())
        self._spawn(self._run(), "vm-events")
        self._leases.open()
        self._operations.open()
        self._statistics.start()
        if self._autostart is not None:
            self._autostart.start()
        await self._settled.wait()  # bounded by connect_timeout_s: OpenSlow settles it too

    def calls(self) -> Mapping[str, CallHandler]:
        """The calls of this level."""
        return {
            "vm.list": self._call_list,
            "vm.status": self._call_status,
            **self._operations.calls(),
            **self._leases.calls(),
            **self._statistics.calls(),
            **({} if self._documents is None else self._documents.calls()),
        }

    async def check(self) -> Health:
        """Ask libvirt something now."""
        if self._connection.phase is Phase.CONNECTED and self._session is not None:
            with contextlib.suppress(LibvirtLostError, LibvirtTimeoutError, LibvirtRefusedError):
                await self._session.hypervisor()
                return self._with_operations(HEALTHY)
        reason = self._connection.reason or "libvirt does not answer"
        return Health(HealthState.DEGRADED, reason)

    async def terminate(self) -> None:
        """Close the connection; guests are libvirt's and go on."""
        self._is_stopping = True
        if self._autostart is not None:
            await self._autostart.close()
        await self._statistics.close()
        await self._operations.close()
        if self._documents is not None:
            await self._documents.close()
        await self._leases.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _call_list(self, _request: Request) -> Plain:
        """Reply: DomainList; read now where libvirt answers, else the last known."""
        known, is_stale = tuple(self._domains.values()), True
        if self._session is not None and self._connection.phase is Phase.CONNECTED:
            with contextlib.suppress(LibvirtLostError, LibvirtTimeoutError):
                known, is_stale = await self._session.read_domains(), False
        if is_stale:  # what was just read is in order
            known = tuple(sorted(known, key=lambda domain: domain.name))
        listed = known[:DOMAINS_LISTED_MAX]
        found = DomainList(domains=listed, is_stale=is_stale, omitted=len(known) - len(listed))
        if self._listed is None or self._listed[0] != found:  # most lists are as the last one
            self._listed = found, to_wire(found)
        return self._listed[1]

    async def _call_status(self, _request: Request) -> Plain:
        """Reply: VmStatus."""
        counts = Counter(domain.state.value for domain in self._domains.values())
        status = VmStatus(
            libvirt_uri=self._settings.libvirt_uri,
            is_connected=self._connection.phase is Phase.CONNECTED,
            reason=self._connection.reason,
            hypervisor=self._hypervisor,
            libvirt_version=self._version,
            disk_lock=self._disk_lock,
            domains=dict(counts),
            connections=self._connection.connections,
            autostart=None if self._autostart is None else self._autostart.status,
        )
        return to_wire(status)

    async def _run(self) -> None:
        """Take in one thing after another, for ever."""
        while True:
            if self._unread and self._inbox.is_empty():
                await self._read_changed(self._unread.popleft())
                continue
            item = await self._inbox.get()
            if not isinstance(item, DomainChanged):
                await self._step(item)
            elif item.generation != self._connection.generation:
                continue
            elif self._connection.phase is Phase.OPENING:
                self._early.append(item.event)
            else:
                self._domain_changed(item.event)
            while self._early and self._connection.phase is Phase.CONNECTED:
                self._domain_changed(self._early.popleft())
            if self._inbox.was_full():
                await self._step(machine.ReadDue(self._connection.generation))

    async def _step(self, event: machine.Event) -> None:
        self._connection, actions = machine.step(self._connection, event)
        for action in actions:
            match action:
                case machine.Open(generation):
                    self._early.clear()
                    self._spawn(self._open(generation), "libvirt-open")
                case machine.WaitRetry(delay_s):
                    self._spawn(self._retry(delay_s), "libvirt-retry")
                case machine.Discard():
                    self._discard()
                case machine.ReadAll():
                    await self._read_all()
                case machine.Report(health):
                    self._report(health)
                case _:
                    assert_never(action)

    async def _open(self, generation: int) -> None:
        """Try to connect once; what comes of it goes into the inbox."""
        future = start_thread(partial(self._open_blocking, generation), "libvirt-open")
        timeout_s = self._settings.connect_timeout_s
        if not await wait_done(future, timeout_s):
            reason = f"libvirt at {self._settings.libvirt_uri} has not answered for {timeout_s} s"
            self._inbox.put(machine.OpenSlow(generation, reason))
        try:
            session, domains, (self._hypervisor, self._version) = await future
        except (LibvirtUnavailableError, LibvirtLostError, LibvirtRefusedError) as exc:
            self._inbox.put(machine.OpenFailed(generation, exc.message))
        except ImportError as exc:
            reason = f"libvirt's client library can't be loaded: {exc}"
            self._inbox.put(machine.OpenFailed(generation, reason))
        else:
            self._session = AsyncSession(
                session, generation, self._inbox, self._settings.call_timeout_s
            )
            self._disk_lock = await asyncio.to_thread(libvirt_lock, self._settings.libvirt_uri)
            self._note_reading(domains)
            self._inbox.put(machine.Opened(generation))

    def _open_blocking(
        self, generation: int
    ) -> tuple[LibvirtSession, tuple[DomainRecord, ...], tuple[str, str]]:
        # Imported here: the library may be missing, and the node must come up all the same.
        from services.vm.libvirt_adapter import LibvirtSession

        settings = self._settings
        session = LibvirtSession.open(
            settings.libvirt_uri,
            InboxListener(self._inbox, generation),
            keepalive_interval_s=settings.keepalive_interval_s,
            keepalive_count=settings.keepalive_count,
        )
        try:
            opened = session, session.read_domains(), session.hypervisor()
        except (LibvirtLostError, LibvirtRefusedError):
            session.close()
            raise
        if self._is_stopping:  # nobody waits for it any more
            session.close()
        return opened

    async def _reread(self, generation: int) -> None:
        """Have all domains read again from time to time, as long as this connection lives."""
        for pause_s in chain(REREAD_PAUSES_S, repeat(REREAD_PERIOD_S)):
            await asyncio.sleep(pause_s)
            if generation != self._connection.generation:
                return
            self._inbox.put(machine.ReadDue(generation))

    async def _retry(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        self._inbox.put(machine.RetryDue())

    async def _read_all(self) -> None:
        if self._session is None:
            return
        try:
            self._note_reading(await self._session.read_domains())
        except (LibvirtLostError, LibvirtTimeoutError, LibvirtRefusedError) as exc:
            self._context.log.warning("domains_unreadable", reason=exc.message)

    def _note_reading(self, domains: tuple[DomainRecord, ...]) -> None:
        """Take a full reading over, with an event for each change that was not told."""
        before = self._domains
        self._take(domains)
        if self._has_read:
            for event in changes_between(before, self._domains):
                self._emit(event)
        self._has_read = True

    def _domain_changed(self, event: DomainEvent) -> None:
        """Publish an event at once; what it leaves open is read when no other one waits."""
        self._emit(event)
        if event.kind in _ENDS:
            self._leases.note_ended(event.uuid)
        elif event.kind in _RUNS_AGAIN:
            self._leases.look_soon()
        self._take(apply_event(self._domains, event).values())
        if event.uuid not in self._unread:
            self._unread.append(event.uuid)

    async def _read_changed(self, uuid: str) -> None:
        if self._session is None:
            return
        try:
            record = await self._session.read_domain(uuid)
        except DomainNotFoundError:
            self._take(d for d in self._domains.values() if d.uuid != uuid)
        except (LibvirtLostError, LibvirtTimeoutError) as exc:  # a full reading follows from both
            self._context.log.debug("domain_unread", uuid=uuid, reason=exc.message)
        else:
            self._take((*self._domains.values(), record))

    def _take(self, domains: Iterable[DomainRecord]) -> None:
        """These are the domains now; of two with one UUID the later counts."""
        self._domains = {domain.uuid: domain for domain in domains}
        counts = Counter(domain.state for domain in self._domains.values())
        for state in DomainState:
            if counts[state] != self._counted[state]:
                self._measure(MetricKind.GAUGE, "novacron_vm_domains", counts[state], state)
        self._counted = counts

    def _emit(self, event: DomainEvent) -> None:
        fields = {"uuid": event.uuid, "vm": event.name, "detail": event.detail}
        self._context.log.info("domain_event", kind=event.kind.value, **fields)
        self._context.emit(f"vm:{event.kind.value}", **fields, is_observed=event.is_observed)

    def _discard(self) -> None:
        session, self._session = self._session, None
        self._context.emit("vm:libvirt-lost", reason=self._connection.reason)
        if session is not None:
            self._spawn(session.close(), "libvirt-close")

    def _report(self, health: Health) -> None:
        log = self._context.log
        if self._connection.connections != self._announced:
            self._announced = self._connection.connections
            self._spawn(self._reread(self._connection.generation), "vm-reread")
            log.info("libvirt_connected", uri=self._settings.libvirt_uri, version=self._version)
            self._context.emit("vm:libvirt-connected", uri=self._settings.libvirt_uri)
            self._measure(MetricKind.COUNTER, "novacron_vm_libvirt_connections_total", 1)
        if self._autostart is not None:
            is_connected = self._connection.phase is Phase.CONNECTED
            self._autostart.connected(is_connected=is_connected)
        if health != self._health:
            self._health = health
            if health.state is not HealthState.HEALTHY:
                log.warning("libvirt_unavailable", reason=health.reason)
            self._publish_health()
        self._settled.set()

    def _publish_health(self) -> None:
        """The connection's health, unless it is good and an operation hangs."""
        if self._health is not None:
            self._context.set_health(self._with_operations(self._health))

    def _with_operations(self, health: Health) -> Health:
        parts = (self._leases, self._operations, self._documents, self._statistics, self._autostart)
        reason = next((part.reason for part in parts if part and part.reason), "")
        if reason and health.state is HealthState.HEALTHY:
            return Health(HealthState.DEGRADED, reason)
        return health

    def _measure(
        self, kind: MetricKind, name: str, value: float, state: DomainState | None = None
    ) -> None:
        labels = {"state": state.value} if state else {}
        self._context.measure(MetricSample(kind, name, value, labels))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:  # Any: asyncio's own
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._context.fail(error)
