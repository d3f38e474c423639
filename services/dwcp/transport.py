"""A DWCP transport process: one plain loop that owns the TCP streams of its transfers.

It takes accepted streams from the manager over a Unix socket, and orders to send over the call
channel. All that blocks or computes runs on a small pool; the loop itself only moves bytes, so it
beats however slow a disk is.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from protocol.errors import RemoteProtocolError
from protocol.messages.health import HEALTHY
from protocol.names import parent_path
from protocol.records import Plain, from_wire, to_wire
from services.dwcp import handoff
from services.dwcp.errors import (
    BusyError,
    CancelledError,
    DwcpSettingsError,
    RequestRefusedError,
    StoppingError,
    TransferUnknownError,
)
from services.dwcp.framing import Verdict, pack_answer
from services.dwcp.model import (
    Direction,
    SendOrder,
    StatusQuery,
    TransferRequest,
    TransferStatus,
    TransportReport,
    TransportSettings,
)
from services.dwcp.pool import Pool
from services.dwcp.receiving import ReceiveSession
from services.dwcp.sending import open_send_session
from services.dwcp.session import Resources, Session
from services.dwcp.sockets import prepare_stream, raise_descriptor_limit
from supervisor.child.service import BlockingCallHandler, BlockingContext, BlockingService, Request

# Each one holds descriptors, memory and a share of the CPU; more would only make all slower.
SESSIONS_MAX = 16
# Ended transfers are kept until the manager has taken note, in this number at most.
ENDED_MAX = 256
TICK_S = 0.1
# Well inside the shortest liveness period that makes sense.
IDLE_S = 0.5
# The peers hear that we stop within this time or find out themselves.
STOP_S = 0.5
R = TypeVar("R")


class TransportService(BlockingService):
    """The loop of core/dwcp/transport.N."""

    def calls(self) -> Mapping[str, BlockingCallHandler]:
        """What the manager may ask."""
        return {
            "transfer.send": self._call_send,
            "transfer.status": self._call_status,
            "transfer.cancel": self._call_cancel,
        }

    def run(self, context: BlockingContext) -> None:
        """Run until told to stop."""
        self._prepare(context)
        context.set_health(HEALTHY)
        context.ready()
        try:
            while context.turn():
                self._turn(TICK_S if self._sessions else IDLE_S)
        finally:
            self._stop()

    def _prepare(self, context: BlockingContext) -> None:
        try:
            settings = from_wire(TransportSettings, context.settings)
        except RemoteProtocolError as exc:
            raise DwcpSettingsError(exc.message) from exc
        raise_descriptor_limit()
        self._context = context
        self._manager = f"{parent_path(context.path)}/manager"
        self._incarnation = f"{time.time_ns():x}"
        self._sessions: dict[tuple[bytes, Direction], Session] = {}
        # Of sessions that have ended and only linger: the manager has taken note already.
        self._forgotten: set[str] = set()
        self._ended: deque[TransferStatus] = deque(maxlen=ENDED_MAX)
        self._ticked_s = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._pool = Pool(settings.threads)
        self._resources = Resources(
            self._selector,
            self._pool,
            settings,
            context.path.rpartition("/")[2],
            settings.buffer_bytes,
        )
        self._door_path = handoff.descriptor_socket(Path(settings.run_dir), context.path)
        self._door = handoff.listen(self._door_path)
        read = selectors.EVENT_READ
        self._selector.register(self._door, read, self._on_door)
        self._selector.register(self._pool, read, lambda _mask: self._pool.run_completed())
        self._selector.register(context.control_fd(), read, lambda _mask: None)

    def _turn(self, wait_s: float) -> None:
        for key, mask in self._selector.select(wait_s):
            # A handler before it in the same round may have closed this one.
            if self._selector.get_map().get(key.fd) is key:
                key.data(mask)
        now_s = time.monotonic()
        if now_s - self._ticked_s >= TICK_S:
            self._ticked_s = now_s
            for session in tuple(self._sessions.values()):
                session.tick(now_s)
                if session.is_over:
                    self._retire(session)

    def _retire(self, session: Session) -> None:
        del self._sessions[session.key]
        status = session.status()
        if status.key in self._forgotten:
            self._forgotten.remove(status.key)
        else:
            self._ended.append(status)
        self._context.log.info(
            "transfer_ended",
            transfer=status.transfer,
            direction=status.direction.value,
            state=status.state.value,
            error=status.error,
            wire_bytes=status.wire_bytes,
        )

    def _stop(self) -> None:
        for session in self._sessions.values():
            session.fail(StoppingError("the node stops"))
        deadline_s = time.monotonic() + STOP_S
        while self._sessions and time.monotonic() < deadline_s:
            self._turn(TICK_S)
        for session in self._sessions.values():
            session.abandon()
        self._pool.close()
        for session in self._sessions.values():
            session.close_files()
        self._door.close()
        with contextlib.suppress(FileNotFoundError):
            self._door_path.unlink()
        self._selector.close()

    def _call_send(self, request: Request) -> Plain:
        self._refuse_strangers(request)
        order = _body(SendOrder, request)
        self._refuse_overload()
        session = open_send_session(self._resources, order)
        if session.key in self._sessions:
            raise RequestRefusedError("there is a transfer of this id")
        self._sessions[session.key] = session
        session.pump()
        return to_wire(session.status())

    def _call_status(self, request: Request) -> Plain:
        query = _body(StatusQuery, request)
        sessions = [session.status() for session in self._sessions.values()]
        lingering = {status.key for status in sessions if status.is_ended}
        self._forgotten |= lingering.intersection(query.forget)
        kept = [status for status in self._ended if status.key not in query.forget]
        self._ended = deque(kept, maxlen=ENDED_MAX)
        known = tuple(status for status in sessions if status.key not in self._forgotten)
        return to_wire(TransportReport(incarnation=self._incarnation, transfers=(*known, *kept)))

    def _call_cancel(self, request: Request) -> Plain:
        self._refuse_strangers(request)
        wanted = _body(TransferRequest, request).transfer
        found = [s for s in self._sessions.values() if s.exchange.transfer.hex() == wanted]
        if not found:
            raise TransferUnknownError(f"no transfer {wanted:.40} runs here")
        for session in found:
            session.fail(CancelledError("cancelled by the operator"))
        return {}

    def _refuse_strangers(self, request: Request) -> None:
        if request.caller != self._manager:
            raise RequestRefusedError(f"{request.method} is for {self._manager} only")

    def _refuse_overload(self) -> None:
        if len(self._sessions) >= SESSIONS_MAX:
            raise BusyError(f"{SESSIONS_MAX} transfers run in this process")

    def _on_door(self, _mask: int) -> None:
        # Too few descriptors for one more is the manager's to notice: its stream is refused.
        with contextlib.suppress(OSError):
            if (channel := handoff.accept(self._door)) is None:
                return
            self._selector.register(
                channel, selectors.EVENT_READ, lambda _mask: self._on_channel(channel)
            )

    def _on_channel(self, channel: socket.socket) -> None:
        try:
            handed = handoff.take(channel)
        except BlockingIOError:
            return
        except OSError:
            handed = None
        if handed is None:
            self._selector.unregister(channel)
            channel.close()
            return
        self._admit(handed)

    def _admit(self, handed: handoff.Handed) -> None:
        preamble, sock = handed.preamble, handed.sock
        settings = self._resources.settings
        verdict = self._judge(handed)
        try:
            congestion = prepare_stream(
                sock, congestion=settings.congestion, stall_s=settings.stall_s
            )
            sock.send(pack_answer(verdict))
        except OSError:
            verdict = Verdict.MALFORMED
        if verdict is not Verdict.OK:
            sock.close()
            return
        key = preamble.transfer, Direction.RECEIVE
        if preamble.stream == 0:
            self._sessions[key] = ReceiveSession(self._resources, preamble.transfer, handed.peer)
        session = self._sessions[key]
        assert isinstance(session, ReceiveSession)
        session.join(sock, preamble.stream, congestion)

    def _judge(self, handed: handoff.Handed) -> Verdict:
        preamble = handed.preamble
        session = self._sessions.get((preamble.transfer, Direction.RECEIVE))
        if preamble.stream == 0:
            if session is not None:
                return Verdict.MALFORMED
            return Verdict.BUSY if len(self._sessions) >= SESSIONS_MAX else Verdict.OK
        if not isinstance(session, ReceiveSession):
            return Verdict.UNKNOWN_TRANSFER
        return Verdict.OK if session.wants(preamble) else Verdict.MALFORMED


def _body(cls: type[R], request: Request) -> R:
    try:
        return from_wire(cls, request.body if request.body is not None else {})
    except RemoteProtocolError as exc:
        raise RequestRefusedError(exc.message) from exc
