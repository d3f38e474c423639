"""Keeps the manager's book up to date: asks the transports, tells the world, saves the totals."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from protocol.errors import NovacronError, PeerUnavailableError, RemoteProtocolError
from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.names import child_path, parent_path
from protocol.records import from_wire, to_wire
from services.data.checkpoint_client import RETRY_S, CheckpointClient, Outcome
from services.dwcp.errors import TransportLostError
from services.dwcp.files import remove_abandoned
from services.dwcp.ledger import Change, Ledger
from services.dwcp.model import ManagerSettings, StatusQuery, Totals, TransportReport
from services.dwcp.reporter import Reporter
from supervisor.child.service import ServiceContext

POLL_S = 0.2
REPORT_TIMEOUT_S = 2.0
CHECKPOINT_VERSION = 1


class Follower:
    """Follows the transfers of all transports.

    Args:
        context: of the manager.
        settings: of the manager.
        retry_s: pause before a database that did not answer is asked again.

    Attributes:
        ledger: the book.
    """

    def __init__(
        self,
        context: ServiceContext,
        settings: ManagerSettings,
        *,
        retry_s: float = RETRY_S,
    ) -> None:
        self.ledger = Ledger(settings.transports)
        self._context = context
        self._transports = settings.transports
        self._incoming = Path(settings.incoming_dir)
        self._reporter = Reporter(context)
        self._wake = asyncio.Event()
        self._retry_s = retry_s
        self._checkpoint = CheckpointClient(
            context, version=CHECKPOINT_VERSION, period_s=0.0, retry_s=retry_s
        )
        self._is_restored = False
        self._first_answer = asyncio.Event()

    def path_of(self, transport: str) -> str:
        """The process path of a transport, given its id."""
        return child_path(parent_path(self._context.path), transport)

    def wake(self) -> None:
        """There is, or may be, something to follow."""
        self._wake.set()

    async def run(self) -> None:
        """Follow until cancelled: five times a second while transfers run, else not at all."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.poll()
            while self.ledger.is_active:
                await asyncio.sleep(POLL_S)
                await self.poll()
                self._reporter.measure(self.ledger.running(), time.monotonic())
                await self.save()
            await self.poll()  # lets the transports forget what has ended
            if self.ledger.running():  # and one came meanwhile
                self._wake.set()
            self._reporter.measure_idle()
            await self.save()

    async def poll(self) -> None:
        """Ask all transports now."""
        await asyncio.gather(*(self._poll_one(transport) for transport in self._transports))

    async def publish(self, changes: list[Change]) -> None:
        """Tell the world, and remove what a dead transport left behind."""
        self._reporter.publish(changes)
        for change in changes:
            if change.has_ended and change.status.error == TransportLostError.code:
                transfer = change.status.transfer
                await asyncio.to_thread(remove_abandoned, self._incoming, transfer)

    def health(self) -> Health:
        """By the transports' answers to the last poll."""
        away = [known.id for known in self.ledger.health() if not known.is_available]
        if not away:
            return HEALTHY
        all_away = len(away) == len(self._transports)
        state = HealthState.UNHEALTHY if all_away else HealthState.DEGRADED
        return Health(state, f"no answer from {', '.join(away)}")

    async def restore(self) -> None:
        """Add what the last run saved to the totals; ask again until the database answers.

        Nothing is saved before, so a database that is away for a while does not cost the totals.
        """
        while not await self._restore_once():
            self._first_answer.set()
            await asyncio.sleep(self._retry_s)
        self._is_restored = True
        self._first_answer.set()
        await self.save()

    async def wait_restored(self) -> None:
        """Wait until the totals are whole, or the database could not be asked."""
        await self._first_answer.wait()  # bounded, as the call to the database is

    async def save(self, *, at_once: bool = False) -> None:
        """Save the totals when they changed; without a database, try again later."""
        if not self._is_restored or self.ledger.totals == Totals():
            return  # not known yet, or nothing to keep
        await self._checkpoint.offer(to_wire(self.ledger.totals))
        if at_once:
            await self._checkpoint.flush()

    async def _restore_once(self) -> bool:
        """Ask for the checkpoint; False when it can't be had now.

        The totals only count, so what can't be read is given up and counting begins anew.
        """
        found = await self._checkpoint.restore()
        if found.outcome is Outcome.UNAVAILABLE:
            return False
        if found.outcome is Outcome.RESTORED:
            try:
                self.ledger.add_totals(from_wire(Totals, found.state))
            except RemoteProtocolError as exc:
                self._context.log.warning("checkpoint_malformed", reason=str(exc))
        elif found.outcome is Outcome.REFUSED:
            self._checkpoint.start_over()
        return True

    async def _poll_one(self, transport: str) -> None:
        query = to_wire(StatusQuery(forget=self.ledger.query(transport)))
        is_gone = False
        try:
            reply = await self._context.call(
                self.path_of(transport), "transfer.status", query, timeout_s=REPORT_TIMEOUT_S
            )
            report = from_wire(TransportReport, reply)
        except PeerUnavailableError:
            is_gone = True
        except NovacronError as exc:
            self._context.log.warning("transport_silent", transport=transport, reason=str(exc))
        else:
            await self.publish(
                self.ledger.take_report(
                    transport, report, now_s=time.monotonic(), unix_s=time.time()
                )
            )
            return
        await self.publish(
            self.ledger.take_silence(
                transport, now_s=time.monotonic(), unix_s=time.time(), is_gone=is_gone
            )
        )
