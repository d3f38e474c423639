"""The decisions of several supervisors as one stream, in order of time.

Each supervisor is asked over a connection of its own and holds its answer back until it has
decided something. What arrives is held for HOLD_S, in which the others' answers about the same
moment arrive as well, and is then put in order by the clock that all processes of a host share.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from protocol import envelope, names
from protocol.envelope import Envelope, Kind
from protocol.errors import PeerUnavailableError
from protocol.messages.status import ComponentStatus
from protocol.messages.trace import Decision, TracePage, TraceQuery
from protocol.records import from_wire, to_wire
from protocol.transports import zeromq
from protocol.transports.person import PersonKeys

# How long a decision waits for earlier ones of other supervisors; a person does not see it.
HOLD_S = 0.2
# How long a supervisor may hold an answer back, and how long past that it is waited for.
_WAIT_S = 4.0
_GRACE_S = 2.0
# A supervisor that is being started is connected to anew so often, for so long: ZeroMQ's own
# attempts grow apart, and what is decided before one succeeds is not recorded.
_EAGER_PERIOD_S = 0.1
_EAGER_S = 2.0
# Decisions between two looks of ours; with more the oldest are printed without further waiting.
_HELD_MAX = 10_000


def supervisors_of(components: Iterable[ComponentStatus], path: str = names.ROOT) -> list[str]:
    """The supervisors whose decisions are about a component, or about the node.

    Args:
        components: of the node.
        path: the component; a supervisor stands for all below it.
    """
    every = [c.path for c in components if c.kind == "supervisor" and c.pid is not None]
    if path == names.ROOT:
        return [names.ROOT, *every]
    below = [other for other in every if other == path or other.startswith(f"{path}/")]
    return [names.parent_path(path), *below]


def is_about(decision: Decision, path: str) -> bool:
    """Whether a decision is of or about a component, or of one below it."""
    if path == names.ROOT or f"{decision.supervisor}/".startswith(f"{path}/"):
        return True
    if decision.supervisor != names.parent_path(path):
        return False
    name = path.rpartition("/")[2]
    return any(item.fields.get("id") == name for item in (decision.event, *decision.actions))


@dataclass(slots=True)
class _Source:
    """One supervisor that is asked."""

    socket: zeromq.Socket
    number: int = 0
    deadline_s: float = 0.0
    eager_until_s: float = 0.0
    query: TraceQuery = field(default_factory=lambda: TraceQuery(wait_s=_WAIT_S))


class Gatherer:
    """Asks supervisors for their decisions; one thread, no waiting but in ``gather``.

    Args:
        run: the node's run directory.
    """

    def __init__(self, run: Path) -> None:
        self.lost = 0
        self._run = run
        self._context: zeromq.Context = zmq.Context(io_threads=1)
        self._keys = PersonKeys(run)
        self._poller = zmq.Poller()
        self._sources: dict[str, _Source] = {}
        self._numbers = itertools.count(1)
        self._held: list[tuple[float, str, int, Decision]] = []

    @property
    def supervisors(self) -> list[str]:
        """Those that are asked at the moment."""
        return list(self._sources)

    def ask(self, supervisors: Iterable[str], now_s: float) -> None:
        """Ask these from now on, and no others."""
        wanted = list(supervisors)
        for path in [path for path in self._sources if path not in wanted]:
            self._drop(path)
        for path in wanted:
            if path not in self._sources and (source := self._connect(path)) is not None:
                self._send(source, now_s)

    def ask_again(self, path: str, now_s: float) -> None:
        """A supervisor begins anew, and what it was asked is lost."""
        if path in self._sources:
            self._reconnect(path, now_s, eager_until_s=now_s + _EAGER_S)

    def gather(self, wait_s: float, now_s: float) -> list[Decision]:
        """Take in what arrives within a time; returns what has just arrived, in any order.

        Raises:
            RemoteCallError: a supervisor refuses.
        """
        found: list[Decision] = []
        ready = dict(self._poller.poll(int(wait_s * 1000)))
        for path, source in list(self._sources.items()):
            if source.socket in ready:
                found += self._take(path, source, now_s)
            elif source.deadline_s <= now_s:
                self._keys.forget()  # it may be another tree by now
                self._reconnect(path, now_s, eager_until_s=source.eager_until_s)
        for decision in found:
            heapq.heappush(self._held, (decision.at_s, decision.supervisor, decision.seq, decision))
        return found

    def release(self, now_s: float) -> list[Decision]:
        """The decisions that have been held long enough, in order of time."""
        found = []
        while self._held and (self._held[0][0] <= now_s - HOLD_S or len(self._held) > _HELD_MAX):
            found.append(heapq.heappop(self._held)[3])
        return found

    def close(self) -> None:
        """Close every connection; the supervisors stop recording by themselves."""
        for path in list(self._sources):
            self._drop(path)
        self._context.term()

    def _take(self, path: str, source: _Source, now_s: float) -> list[Decision]:
        found: list[Decision] = []
        while (payload := zeromq.receive(source.socket)) is not None:
            reply = envelope.decode(payload)
            if reply.id != source.number or reply.kind not in (Kind.REPLY, Kind.FAILURE):
                continue  # the answer to a question that was asked again
            page = from_wire(TracePage, zeromq.reply_body(reply, path))
            found += page.decisions
            is_same = source.query.recording == page.recording
            self.lost += page.lost if is_same else 0
            source.eager_until_s = 0.0
            source.query = TraceQuery(recording=page.recording, since=page.next, wait_s=_WAIT_S)
            self._send(source, now_s)
        return found

    def _connect(self, path: str) -> _Source | None:
        try:
            socket = zeromq.client_socket(self._context, self._run, path, self._keys.current())
        except PeerUnavailableError:
            return None  # it has not begun yet; the next ``ask`` tries again
        self._poller.register(socket, zmq.POLLIN)
        self._sources[path] = _Source(socket)
        return self._sources[path]

    def _reconnect(self, path: str, now_s: float, *, eager_until_s: float) -> None:
        query = self._sources[path].query
        self._drop(path)
        source = self._connect(path)
        if source is not None:
            source.query, source.eager_until_s = query, eager_until_s
            self._send(source, now_s)

    def _send(self, source: _Source, now_s: float) -> None:
        source.number = next(self._numbers)
        is_eager = now_s < source.eager_until_s
        source.deadline_s = now_s + (_EAGER_PERIOD_S if is_eager else _WAIT_S + _GRACE_S)
        timeout_ms = int((_WAIT_S + _GRACE_S) * 1000)
        body = to_wire(source.query)
        call = Envelope(Kind.CALL, source.number, "trace", timeout_ms, "", body)
        zeromq.send(source.socket, [envelope.encode(call)])

    def _drop(self, path: str) -> None:
        source = self._sources.pop(path)
        self._poller.unregister(source.socket)
        source.socket.close(linger=0)
