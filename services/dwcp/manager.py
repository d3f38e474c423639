"""The DWCP manager: takes orders and streams, gives them to transport processes, keeps the book.

It moves no bytes itself. While transfers run it asks the transports five times a second how they
stand; otherwise it sleeps. docs/protocol-dwcp.md has the calls.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from protocol.errors import (
    CallTimeoutError,
    PeerUnavailableError,
    RemoteCallError,
    RemoteProtocolError,
)
from protocol.messages.health import HEALTHY, Health
from protocol.names import is_person
from protocol.records import Plain, from_wire, to_wire
from services.dwcp import handoff
from services.dwcp.errors import (
    BusyError,
    DwcpError,
    DwcpSettingsError,
    HostUnknownError,
    RequestRefusedError,
    TransferUnknownError,
    TransportLostError,
    from_code,
)
from services.dwcp.files import has_unfinished, make_directory, remove_abandoned
from services.dwcp.follower import Follower
from services.dwcp.framing import Preamble, Verdict
from services.dwcp.listener import Listener
from services.dwcp.model import (
    ADDRESSES_MAX,
    TRANSFER_BYTES,
    Address,
    Direction,
    DwcpStatus,
    ManagerSettings,
    SendOrder,
    SendRequest,
    StatusRequest,
    TransferRequest,
    TransferState,
    TransferStatus,
)
from services.dwcp.sockets import format_address
from supervisor.child.service import CallHandler, Request, Service, ServiceContext

RESOLVE_S = 5.0
# Who may start and cancel transfers: sending reads any file that the transports may read.
_MAY_ORDER = frozenset({"api"})
R = TypeVar("R")


class ManagerService(Service):
    """core/dwcp/manager."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    async def init(self, context: ServiceContext) -> None:
        """Adopt what the transports carry, and listen.

        The totals of the last run are added when the database gives them: they only count, so
        no transfer waits for them, and a database that is down is not waited for. A status does
        wait, so that nobody sees less than before.
        """
        try:
            settings = from_wire(ManagerSettings, context.settings)
        except RemoteProtocolError as exc:
            raise DwcpSettingsError(exc.message) from exc
        self._context = context
        self._settings = settings
        self._follower = Follower(context, settings)
        self._ledger = self._follower.ledger
        self._listener = Listener(
            self._choose,
            self._given,
            self._socket_of,
            preamble_s=settings.preamble_s,
            log=context.log,
        )
        await self._follower.poll()
        await self._tidy(Path(settings.incoming_dir))
        self._listener.open(settings.host, settings.port)
        self._tasks = [
            asyncio.create_task(self._guard(self._listener.serve)),
            asyncio.create_task(self._guard(self._follower.run)),
            asyncio.create_task(self._guard(self._follower.restore)),
        ]
        self._follower.wake()
        context.log.info("dwcp_listening", address=self._listener.address)
        context.set_health(HEALTHY)

    def calls(self) -> Mapping[str, CallHandler]:
        """What others may ask."""
        return {
            "dwcp.send": self._call_send,
            "dwcp.status": self._call_status,
            "dwcp.cancel": self._call_cancel,
        }

    async def check(self) -> Health:
        """Ask every transport."""
        await self._follower.poll()
        health = self._follower.health()
        self._context.set_health(health)
        return health

    async def terminate(self) -> None:
        """Stop listening and save the totals; the transports end their transfers themselves."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            await self._listener.close()
            await self._follower.save(at_once=True)

    async def _call_send(self, request: Request) -> Plain:
        self._refuse_strangers(request)
        wanted = _body(SendRequest, request)
        most = self._settings.max_streams
        if wanted.streams is not None and wanted.streams > most:
            raise RequestRefusedError(f"streams: at most {most}, as configured")
        transfer = secrets.token_hex(TRANSFER_BYTES)
        peer = format_address((wanted.host, wanted.port))
        try:
            addresses = await self._resolve(wanted.host, wanted.port)
            await self._order(self._plan(wanted, transfer, peer, addresses))
        except DwcpError as exc:
            await self._note_refused(transfer, wanted.file, peer, exc)
            raise
        return {"transfer": transfer}

    async def _call_status(self, request: Request) -> Plain:
        wanted = _body(StatusRequest, request).transfer
        await self._follower.wait_restored()
        if not self._ledger.is_active:
            await self._follower.poll()
        transfers = self._ledger.transfers()
        if wanted:
            transfers = tuple(status for status in transfers if status.transfer == wanted)
            if not transfers:
                raise TransferUnknownError(f"no transfer {wanted:.40} is known")
        return to_wire(
            DwcpStatus(
                address=self._listener.address,
                transports=self._ledger.health(),
                totals=self._ledger.totals,
                transfers=transfers,
            )
        )

    async def _call_cancel(self, request: Request) -> Plain:
        self._refuse_strangers(request)
        wanted = _body(TransferRequest, request)
        running = [s for s in self._ledger.running() if s.transfer == wanted.transfer]
        if not running:
            raise TransferUnknownError(f"no transfer {wanted.transfer:.40} runs")
        for transport in {status.transport for status in running}:
            await self._ask(transport, "transfer.cancel", to_wire(wanted))
        await self._follower.poll()
        return {}

    def _refuse_strangers(self, request: Request) -> None:
        if request.caller not in _MAY_ORDER and not is_person(request.caller):
            raise RequestRefusedError(f"{request.caller} may not call {request.method}")

    def _plan(
        self, wanted: SendRequest, transfer: str, peer: str, addresses: tuple[Address, ...]
    ) -> SendOrder:
        settings = self._settings
        return SendOrder(
            transfer=transfer,
            file=wanted.file,
            peer=peer,
            addresses=addresses,
            streams=wanted.streams or settings.initial_streams,
            streams_max=wanted.streams or settings.max_streams,
            congestion=settings.congestion,
            compression=settings.compression,
            level=settings.level,
        )

    async def _resolve(self, host: str, port: int) -> tuple[Address, ...]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(RESOLVE_S):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError:
            raise HostUnknownError(f"{host} did not resolve within {RESOLVE_S:g} s") from None
        except (OSError, UnicodeError) as exc:
            raise HostUnknownError(f"{host} does not resolve: {exc}") from exc
        unique = dict.fromkeys(
            Address(family, str(address[0]), port)
            for family, _kind, _proto, _name, address in found
        )
        return tuple(unique)[:ADDRESSES_MAX]

    async def _order(self, order: SendOrder) -> None:
        refusal: DwcpError = TransportLostError("no transport process runs")
        # Whatever becomes of this call, a transfer that it started is followed.
        self._follower.wake()
        for transport in self._ledger.by_load():
            try:
                reply = await self._ask(transport, "transfer.send", to_wire(order))
            except (TransportLostError, BusyError) as exc:
                refusal = exc
                continue
            status = from_wire(TransferStatus, reply)
            await self._follower.publish(self._ledger.take_status(status))
            self._follower.wake()
            return
        raise refusal

    async def _ask(self, transport: str, method: str, body: Plain) -> Plain:
        try:
            return await self._context.call(self._follower.path_of(transport), method, body)
        except RemoteCallError as exc:
            raise from_code(exc.remote_code, exc.message) from exc
        except PeerUnavailableError as exc:
            raise TransportLostError(f"the process {transport} does not run") from exc
        except CallTimeoutError as exc:
            # It may have begun all the same; then the next report says so.
            raise DwcpError(f"the process {transport} does not answer") from exc

    async def _note_refused(self, transfer: str, file: str, peer: str, error: DwcpError) -> None:
        now_s = time.time()
        status = TransferStatus(
            transfer=transfer,
            direction=Direction.SEND,
            state=TransferState.FAILED,
            file=file,
            peer=peer,
            started_s=now_s,
            ended_s=now_s,
            error=error.code,
            message=error.message,
        )
        await self._follower.publish(self._ledger.take_status(status))
        self._follower.wake()

    def _choose(self, preamble: Preamble) -> list[str] | Verdict:
        transfer = preamble.transfer.hex()
        owner = self._ledger.route(transfer)
        if preamble.stream == 0:
            return self._ledger.by_load() if owner is None else Verdict.MALFORMED
        return [owner] if owner is not None else Verdict.UNKNOWN_TRANSFER

    def _given(self, preamble: Preamble, transport: str) -> None:
        if preamble.stream == 0:
            self._ledger.add_route(preamble.transfer.hex(), transport, time.monotonic())
            self._follower.wake()

    def _socket_of(self, transport: str) -> Path:
        return handoff.descriptor_socket(
            Path(self._settings.run_dir), self._follower.path_of(transport)
        )

    async def _tidy(self, incoming: Path) -> None:
        try:
            make_directory(incoming)
            if not has_unfinished(incoming):
                return
        except OSError as exc:
            raise DwcpSettingsError(f"can't use {incoming}: {exc.strerror}") from exc
        # Removing a large file may take long.
        if removed := await asyncio.to_thread(remove_abandoned, incoming):
            self._context.log.info("unfinished_files_removed", count=removed)

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        # Nobody awaits these tasks: what goes wrong in one ends the process with its name on it.
        try:
            await work()
        except Exception as exc:  # noqa: BLE001 - handed to the runtime, which logs and exits
            self._context.fail(exc)


def _body(cls: type[R], request: Request) -> R:
    try:
        return from_wire(cls, request.body if request.body is not None else {})
    except RemoteProtocolError as exc:
        raise RequestRefusedError(exc.message) from exc
