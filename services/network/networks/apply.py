"""Brings networks in force: journal, steps, check, confirmation or restoration.

    state      from          to
    idle       apply         journal written -> changed -> checked -> confirmed, journal removed
    changed    anything bad  restored, journal removed
    any        kill -9       at the next start: a journal is there -> restored, journal removed

Invariant: at every moment either what the host has is as confirmed, as far as this node changes it,
or a journal on disk says what leads back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from protocol.errors import NovacronError
from services.network.errors import MissingCapabilityError, NetlinkFailedError
from services.network.networks.errors import (
    NetworksBusyError,
    NetworksConflictError,
    NetworksNotWantedError,
    NetworksRestoreFailedError,
    NetworksStateError,
    NetworksStepFailedError,
    NetworksUnsupportedError,
)
from services.network.networks.kernel import Kernel
from services.network.networks.mend import describe, difference, finished, listed, mend
from services.network.networks.model import DriftPolicy, NetworksDocument
from services.network.networks.observed import Marks, Observed
from services.network.networks.plan import NetworksPlan, plan_networks
from services.network.networks.reading import read_host
from services.network.networks.records import Applied, NetworksState, NetworksStatus
from services.network.networks.simulate import pending
from services.network.networks.steps import Step
from services.network.networks.store import FORMAT, Confirmed, Journal, NetworkStore, boot_id
from services.network.plan import REPAIRS_MAX, REPAIRS_WINDOW_S, may_repair

# What the host loses or gets while it is restored is looked at anew; this often is enough.
_RESTORE_ATTEMPTS_MAX = 3
# Raises where the change must be taken back; returns what answered.
Probe = Callable[[], Awaitable[tuple[str, ...]]]
_REFUSED = (
    NetlinkFailedError,
    MissingCapabilityError,
    NetworksStepFailedError,
    NetworksUnsupportedError,
)


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the host found.

    Attributes:
        drift: how it differs, or differed before it was repaired.
        repaired: the steps that mended it.
        restored: what was taken back, or made anew after a boot.
    """

    drift: str = ""
    repaired: tuple[Step, ...] = ()
    restored: str = ""


class Networks:
    """The networks of one host. Use it in one loop.

    Args:
        kernel: changes links.
        store: keeps what is wanted.
        marks: tells which links are this node's.
    """

    def __init__(self, kernel: Kernel, store: NetworkStore, marks: Marks) -> None:
        self._kernel = kernel
        self._store = store
        self._marks = marks
        self._confirmed: Confirmed | None = None
        self._unfinished: Journal | None = None
        self._lock = asyncio.Lock()
        self._is_changing = False
        self._repaired_at_s: deque[float] = deque(maxlen=REPAIRS_MAX)
        # Networks that could not be mended, with the reason, and when that was tried.
        self._faults: dict[str, str] = {}
        self._failed_at_s: deque[float] = deque(maxlen=REPAIRS_MAX)
        self._status = NetworksStatus(state=NetworksState.NONE)

    @property
    def status(self) -> NetworksStatus:
        """How they are, as last seen."""
        return self._status

    @property
    def document(self) -> NetworksDocument | None:
        """What is wanted."""
        return None if self._confirmed is None else self._confirmed.document

    async def open(self) -> str:
        """Finish what a dead process left, and put everything back after a boot of the host.

        Returns:
            What was restored, for an event; "" where nothing had to be.

        Raises:
            NetworksStateError: a file is damaged; nothing is touched.
        """
        async with self._lock:
            self._confirmed = self._store.read_confirmed()
            journal = self._store.read_journal()
            if journal is not None and journal.revision > self._revision():
                self._unfinished = journal
            elif journal is not None:
                self._store.end_journal()
            try:
                return await self._recover()
            except (*_REFUSED, NetworksStateError) as exc:
                self._note(NetworksState.FAILED, exc.message)
                return ""

    async def plan(self, document: NetworksDocument | None, *, force: bool = False) -> NetworksPlan:
        """What applying the document would do; changes nothing.

        Raises:
            NetworksNotWantedError: no document, and none was ever applied.
            NetlinkFailedError: the links can't be read.
        """
        target = self._target(document)
        return await self._read_plan(target, force=force)

    async def apply(
        self, document: NetworksDocument | None, probe: Probe, *, force: bool = False
    ) -> Applied:
        """Put a document in force, or what is wanted anew; keep it if the probe is content.

        Raises:
            NetworksBusyError: another change is under way.
            NetworksNotWantedError: no document, and none was ever applied.
            NetworksConflictError, NetworksUnsupportedError: nothing was changed.
            NetworksStepFailedError, NetworksCheckFailedError: what was there is restored.
            NetworksStateError: the journal or the confirmation could not be written; restored.
            NetworksRestoreFailedError: it could not be restored.
        """
        if self._is_changing:
            raise NetworksBusyError("another change of the networks is under way")
        self._is_changing = True
        try:
            async with self._lock:
                return await self._apply(self._target(document), probe, force=force)
        finally:
            self._is_changing = False

    async def look(self) -> Look:
        """Compare the host with what was applied, and mend it where the document wants that.

        Raises:
            NetlinkFailedError: the links can't be read.
        """
        if self._is_changing or (self._confirmed is None and self._unfinished is None):
            return Look()
        async with self._lock:
            try:
                if self._unfinished is not None:
                    return Look(restored=await self._recover())
                return await self._look()
            except (*_REFUSED, NetworksStateError) as exc:
                self._note(NetworksState.FAILED, exc.message)
                return Look(drift=exc.message)

    async def _look(self) -> Look:
        assert self._confirmed is not None, "look has asked"
        plan = await self._read_kept()
        drift = difference(plan)
        # Nothing is made after a boot before this does it, which is no drift.
        is_new_boot = self._confirmed.boot != boot_id()
        if not drift:
            self._note(NetworksState.IN_FORCE)
            if is_new_boot:
                self._confirmed = replace(self._confirmed, boot=boot_id())
                self._store.write_confirmed(self._confirmed)
            return Look()
        is_told = self._confirmed.document.drift is DriftPolicy.REPORT and not is_new_boot
        if is_told or not plan.steps:
            advice = "" if plan.conflicts else "; 'novacronctl net apply' puts it back"
            self._note(NetworksState.DRIFTED, drift + advice)
            return Look(drift=drift)
        if not may_repair(self._repaired_at_s, time.monotonic()):
            self._note(
                NetworksState.DRIFTED,
                f"{drift}: changed {REPAIRS_MAX} times within {REPAIRS_WINDOW_S:.0f} s by somebody "
                "else, and left alone for as long",
            )
            return Look(drift=drift)
        repaired = await self._mend(plan)
        left = "; ".join(self._faults.values()) or difference(await self._read_kept())
        self._note(NetworksState.DRIFTED if left else NetworksState.IN_FORCE, left)
        if not repaired:
            return Look(drift=left)
        if is_new_boot:
            return Look(drift=left, restored=f"made anew after a boot: {describe(repaired)}")
        self._status = replace(self._status, repairs=self._status.repairs + 1)
        return Look(drift=drift, repaired=repaired)

    async def _mend(self, plan: NetworksPlan) -> tuple[Step, ...]:
        """Take the steps of networks that can be mended; those that were taken."""
        now_s = time.monotonic()
        # What fails again and again must not use up the repairs of the others.
        left_out = {} if may_repair(self._failed_at_s, now_s) else self._faults
        self._faults = await mend(self._kernel, plan, self._read_kept, left_out=left_out)
        if self._faults and not left_out:
            self._failed_at_s.append(now_s)
        repaired = tuple(step for step in plan.steps if step.network not in self._faults)
        if repaired:
            self._repaired_at_s.append(now_s)
        return repaired

    async def _apply(self, target: NetworksDocument, probe: Probe, *, force: bool) -> Applied:
        began_s = time.monotonic()
        if self._unfinished is not None:
            await self._recover()
        plan = await self._read_plan(target, force=force)
        if plan.conflicts:
            raise NetworksConflictError(listed(plan.conflicts), conflicts=list(plan.conflicts))
        await self._kernel.check_features(plan.steps)
        revision = self._revision() + 1
        self._store.write_journal(
            Journal(format=FORMAT, revision=revision, undo=plan.undo, boot=boot_id())
        )
        try:
            change_s, checked = await self._change(target, plan, probe)
            self._confirm(
                Confirmed(
                    format=FORMAT,
                    revision=revision,
                    document=target,
                    boot=boot_id(),
                    applied_s=time.time(),
                )
            )
        except BaseException as exc:
            await finished(self._take_back(plan.undo, revision, exc))
            raise
        self._repaired_at_s.clear()
        self._failed_at_s.clear()
        self._note(NetworksState.IN_FORCE)
        return Applied(
            revision=revision,
            steps=len(plan.steps),
            checked=checked,
            warnings=plan.warnings,
            change_s=change_s,
            total_s=time.monotonic() - began_s,
        )

    async def _change(
        self, target: NetworksDocument, plan: NetworksPlan, probe: Probe
    ) -> tuple[float, tuple[str, ...]]:
        began_s = time.monotonic()
        await self._kernel.carry_out(plan.steps)
        change_s = time.monotonic() - began_s
        if plan.steps:
            seen = await read_host(self._marks)
            left = difference(plan_networks(target, target, seen, self._marks))
            if left:
                raise NetworksStepFailedError(
                    f"the kernel took every step, and yet the host is not as wanted: {left}"
                )
        return change_s, await probe() if plan.steps else ()

    async def _recover(self) -> str:
        """Take back what was not confirmed; after a boot, make what was. "" for neither."""
        restored = ""
        if (journal := self._unfinished) is not None:
            # Links do not survive a boot, and a number may be another link's by now.
            if journal.boot == boot_id():
                await self._restore(journal.undo)
            self._store.end_journal()
            self._unfinished = None
            restored = f"change {journal.revision} was not confirmed and is taken back"
        if self._confirmed is not None:
            look = await self._look()
            restored = restored or look.restored
        elif restored:
            self._note(NetworksState.NONE)
        self._status = replace(self._status, restored=restored or self._status.restored)
        return restored

    async def _take_back(
        self, undo: tuple[Step, ...], revision: int, reason: BaseException
    ) -> None:
        if revision == self._revision():
            return  # confirmed already
        with contextlib.suppress(NetworksStateError):  # the disk fails altogether
            # The new document may be there although it could not be said to be durable.
            self._store.put_back(self._confirmed)
        try:
            await self._restore(undo)
        except NovacronError as exc:
            self._unfinished = self._store.read_journal()
            self._note(NetworksState.FAILED, f"could not restore the networks: {exc.message}")
            raise NetworksRestoreFailedError(
                f"the change failed ({reason}) and so did restoring what was before: "
                f"{exc.message}; restart core/network to try again"
            ) from exc
        with contextlib.suppress(NetworksStateError):  # left over, it finds nothing to do
            self._store.end_journal()
        if self._confirmed is None:
            self._note(NetworksState.NONE)
        else:
            with contextlib.suppress(NetlinkFailedError):
                left = difference(await self._read_kept())
                self._note(NetworksState.DRIFTED if left else NetworksState.IN_FORCE, left)

    async def _restore(self, undo: tuple[Step, ...]) -> None:
        """Take the steps that are still needed, looking anew after one that failed."""
        for attempt in range(1, _RESTORE_ATTEMPTS_MAX + 1):
            steps = pending(undo, await read_host(self._marks), self._marks)
            try:
                await self._kernel.carry_out(steps)
            except (NetworksStepFailedError, NetlinkFailedError):
                if attempt == _RESTORE_ATTEMPTS_MAX:
                    raise
            else:
                return

    async def _read_plan(self, target: NetworksDocument, *, force: bool) -> NetworksPlan:
        ports = frozenset(port for network in target.networks for port in network.ports)
        seen = await read_host(self._marks, routes_over=ports)
        previous = self.document or NetworksDocument()
        return plan_networks(target, previous, seen, self._marks, force=force)

    async def _read_kept(self) -> NetworksPlan:
        return self._kept(await read_host(self._marks))

    def _kept(self, seen: Observed) -> NetworksPlan:
        """What is missing of the document in force."""
        document = self.document or NetworksDocument()
        return plan_networks(document, document, seen, self._marks, may_delete=False)

    def _confirm(self, confirmed: Confirmed) -> None:
        self._store.write_confirmed(confirmed)
        self._confirmed = confirmed
        with contextlib.suppress(NetworksStateError):  # left over, it means nothing
            self._store.end_journal()

    def _target(self, document: NetworksDocument | None) -> NetworksDocument:
        target = document if document is not None else self.document
        if target is None:
            raise NetworksNotWantedError("no networks were ever applied: name a document")
        return target

    def _revision(self) -> int:
        return 0 if self._confirmed is None else self._confirmed.revision

    def _note(self, state: NetworksState, reason: str = "") -> None:
        confirmed = self._confirmed
        self._status = replace(
            self._status,
            state=state,
            reason=reason,
            revision=self._revision(),
            applied_s=None if confirmed is None else confirmed.applied_s,
            networks=0 if confirmed is None else len(confirmed.document.networks),
        )
