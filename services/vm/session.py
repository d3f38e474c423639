"""An open connection for the loop: each request in a thread, within a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from services.threads import start_thread, wait_done
from services.vm.connection import Answered, CallTimedOut, Lost
from services.vm.errors import LibvirtLostError, LibvirtTimeoutError
from services.vm.inbox import Inbox
from services.vm.model import DomainRecord

if TYPE_CHECKING:  # loading the adapter needs libvirt's library, which may be missing
    from services.vm.libvirt_adapter import LibvirtSession

# Requests at once; more wait, within their deadline.
REQUESTS_MAX = 4
CLOSE_TIMEOUT_S = 1.0
T = TypeVar("T")


class AsyncSession:
    """Requests on one connection.

    Every request raises LibvirtTimeoutError past its deadline, LibvirtLostError where the
    connection is broken, LibvirtRefusedError where libvirt says no. The first two also go into the
    inbox. While a request is overdue, further ones fail at once: they would only gather threads.

    Args:
        session: the blocking session; belongs to this object from here on.
        generation: of the connection, for the inbox.
        inbox: told of overdue requests, their late end, and a broken connection.
        timeout_s: the deadline of a request.
    """

    def __init__(
        self, session: LibvirtSession, generation: int, inbox: Inbox, timeout_s: float
    ) -> None:
        self._session = session
        self._generation = generation
        self._inbox = inbox
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(REQUESTS_MAX)
        self._overdue = 0

    async def read_domains(self) -> tuple[DomainRecord, ...]:
        """All domains, by name."""
        return await self._ask(self._session.read_domains, "the domains")

    async def read_domain(self, uuid: str) -> DomainRecord:
        """One domain.

        Raises:
            DomainNotFoundError: there is none with that UUID.
        """
        return await self._ask(partial(self._session.read_domain, uuid), f"domain {uuid}")

    async def hypervisor(self) -> tuple[str, str]:
        """The driver's name and libvirt's version; the cheapest way to see that it answers."""
        return await self._ask(self._session.hypervisor, "its version")

    async def close(self) -> None:
        """Close the connection, waiting no longer than ``CLOSE_TIMEOUT_S``."""
        future = start_thread(self._session.close, "libvirt-close")
        future.add_done_callback(_retrieve)
        await wait_done(future, CLOSE_TIMEOUT_S)

    async def _ask(self, work: Callable[[], T], what: str) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._slots.acquire()
        except TimeoutError:
            raise LibvirtTimeoutError(f"{REQUESTS_MAX} requests to libvirt are waiting") from None
        if self._overdue:
            self._slots.release()
            raise LibvirtTimeoutError(f"libvirt still owes {self._overdue} answers")
        future = start_thread(work, "libvirt-request")
        future.add_done_callback(self._request_ended)
        if not await wait_done(future, self._timeout_s):
            reason = f"libvirt did not answer for {what} within {self._timeout_s} s"
            self._overdue += 1
            future.add_done_callback(self._late_end)
            self._inbox.put(CallTimedOut(self._generation, reason))
            raise LibvirtTimeoutError(reason)
        try:
            return future.result()
        except LibvirtLostError as exc:
            self._inbox.put(Lost(self._generation, exc.message))
            raise

    def _request_ended(self, future: asyncio.Future[Any]) -> None:  # Any: of every request
        self._slots.release()
        _retrieve(future)

    def _late_end(self, _future: asyncio.Future[Any]) -> None:  # Any: of every request
        self._overdue -= 1
        if not self._overdue:
            self._inbox.put(Answered(self._generation))


def _retrieve(future: asyncio.Future[Any]) -> None:  # Any: of every request
    if not future.cancelled():
        future.exception()  # a late error has nobody to raise it to
