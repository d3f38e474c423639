"""The caller's side of checkpoints: restore at the start, save what changes, never too often.

    async def init(self, context):
        self._checkpoint = CheckpointClient(context, version=2, migrate=upgrade)
        found = await self._checkpoint.restore()
        if found.outcome is Outcome.RESTORED:
            self._take(found.state)
        elif found.outcome is Outcome.REFUSED:
            raise CriticalError(found.reason)  # or self._checkpoint.start_over()
        self._task = create_task(self._checkpoint.run())

    def _changed(self):
        self._checkpoint.note(self._state())

    async def terminate(self):
        await self._checkpoint.flush()

Invariant: nothing is saved before the last run's state is known (restored, or certainly none), nor
after a refusal until the service says that it begins anew. So a database that is away at the
start, or a program that is older than its own checkpoint, costs no state.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from protocol import codec
from protocol.errors import (
    CallTimeoutError,
    NovacronError,
    PeerUnavailableError,
    RemoteCallError,
    RemoteProtocolError,
)
from protocol.records import Plain, from_wire, to_wire
from services.data.checkpoint_records import Checkpoint, RestoreRequest, SaveReply, SaveRequest
from services.data.errors import CheckpointDamagedError, CheckpointForeignError
from supervisor.child.service import ServiceContext

DATABASE = "data/database"
# A change a second is plenty for what has to survive a crash of the process.
PERIOD_S = 1.0
# A database that is down is not asked with every change.
RETRY_S = 5.0
TIMEOUT_S = 2.0
_REFUSALS = frozenset((CheckpointDamagedError.code, CheckpointForeignError.code))
_AWAY = (PeerUnavailableError, CallTimeoutError, RemoteCallError)

# Turns a state of an earlier version into one of ours; ValueError, KeyError and TypeError say
# that it can't be done.
Migrate = Callable[[int, Plain], Plain]


class Outcome(enum.Enum):
    """What came of restoring.

    ``restored``: there is a state. ``none``: there never was one. ``refused``: there is one, and
    it must not be used. ``unavailable``: nobody knows; ask again.
    """

    RESTORED = "restored"
    NONE = "none"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What ``restore`` found.

    Attributes:
        outcome: see Outcome.
        state: in the format of our version; None unless restored.
        reason: why there is none, or why it is an older one than was saved last.
        is_older: newer generations were damaged or foreign.
        saved_version: in whose format it was saved.
        created_s: when it was saved, Unix time of the database's clock.
    """

    outcome: Outcome
    state: Plain = None
    reason: str = ""
    is_older: bool = False
    saved_version: int = 0
    created_s: float = 0.0


class CheckpointClient:
    """One component's checkpoint.

    Args:
        context: of the service; its path names the component.
        version: of the state's format, as this program writes it.
        migrate: from earlier versions; None where none can be read.
        period_s: the shortest time between two saves.
        retry_s: pause after a save that failed.
        timeout_s: of one call.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        context: ServiceContext,
        *,
        version: int,
        migrate: Migrate | None = None,
        period_s: float = PERIOD_S,
        retry_s: float = RETRY_S,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._version = version
        self._migrate = migrate
        self._period_s = period_s
        self._retry_s = retry_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._may_save = False
        self._generation: int | None = None
        self._saved: bytes | None = None
        self._wanted: bytes | None = None
        self._due_s = float("-inf")
        self._news = asyncio.Event()
        self._saving = asyncio.Lock()

    @property
    def is_saved(self) -> bool:
        """What was noted last has been acknowledged by the database."""
        return self._wanted is None or self._wanted == self._saved

    async def restore(self) -> Restored:
        """Ask once for the last state; never raises because of the database."""
        body = to_wire(RestoreRequest(component=self._context.path))
        try:
            reply = await self._call("checkpoint.restore", body)
            found = None if reply is None else from_wire(Checkpoint, reply)
        except _AWAY as exc:
            is_refused = isinstance(exc, RemoteCallError) and exc.remote_code in _REFUSALS
            return self._refuse(str(exc)) if is_refused else self._unavailable(str(exc))
        except RemoteProtocolError as exc:
            return self._refuse(f"the database's answer is not understood: {exc}")
        if found is None:
            self._may_save, self._generation = True, 0
            return Restored(outcome=Outcome.NONE, reason="nothing was saved yet")
        return self._take(found)

    def start_over(self) -> None:
        """Save from now on although what is stored was refused; it is lost with the second save."""
        self._may_save = True

    def note(self, state: Plain) -> None:
        """This is the state now; ``run`` saves it when it is another one and it is time to.

        Raises:
            LocalProtocolError: it is no plain value.
        """
        self._wanted = codec.encode(state)
        if not self.is_saved:
            self._news.set()

    async def offer(self, state: Plain) -> None:
        """Note the state, and save it now if it is time to; for a service with a beat of its own.

        Raises:
            LocalProtocolError: it is no plain value.
        """
        self.note(state)
        if self._clock() >= self._due_s:
            await self.flush()

    async def flush(self) -> bool:
        """Save what was noted last, now; tells whether all is saved."""
        async with self._saving:
            if self._may_save and not self.is_saved:
                await self._save()
            return self.is_saved

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Save what is noted, until cancelled.

        Args:
            sleep: waits until it is time.
        """
        while True:
            await self._news.wait()
            self._news.clear()
            while not self.is_saved:
                await sleep(max(0.0, self._due_s - self._clock()))
                if not await self.flush() and not self._may_save:
                    break  # noted again after start_over, or never

    async def _save(self) -> None:
        wanted = self._wanted
        assert wanted is not None
        self._due_s = self._clock() + self._period_s
        try:
            reply = await self._send(wanted)
            if not reply.is_saved:  # of an earlier process of ours, on its way when that died
                self._context.log.warning("checkpoint_overtaken", generation=reply.generation)
                self._generation = reply.generation
                reply = await self._send(wanted)
        except (*_AWAY, RemoteProtocolError) as exc:
            self._due_s = self._clock() + self._retry_s
            self._context.log.warning("checkpoint_not_saved", reason=str(exc))
            if isinstance(exc, RemoteCallError) and not exc.remote_retryable:
                self._drop(wanted)
            return
        if reply.is_saved:
            self._saved, self._generation = wanted, reply.generation

    async def _send(self, wanted: bytes) -> SaveReply:
        request = SaveRequest(
            component=self._context.path,
            version=self._version,
            state=codec.decode(wanted),
            after=self._generation,
        )
        return from_wire(SaveReply, await self._call("checkpoint.save", to_wire(request)))

    def _drop(self, refused: bytes) -> None:
        """The database will never take this state, such as one that is too large."""
        self._context.log.error("checkpoint_state_refused", size_bytes=len(refused))
        if self._wanted == refused:
            self._wanted = self._saved

    def _take(self, found: Checkpoint) -> Restored:
        self._generation = max((found.generation, *(r.generation for r in found.refused)))
        state = found.state
        if found.version != self._version:
            try:
                state = self._migrated(found)
            except (ValueError, KeyError, TypeError, NovacronError) as exc:
                return self._refuse(str(exc) or type(exc).__name__)
        self._may_save = True
        if found.version == self._version and not found.refused:
            self._saved = codec.encode(state)
        reason = "; ".join(f"generation {r.generation}: {r.reason}" for r in found.refused)
        if reason:
            self._context.log.error("checkpoint_older", reason=reason, used=found.generation)
        return Restored(
            outcome=Outcome.RESTORED,
            state=state,
            reason=reason,
            is_older=bool(found.refused),
            saved_version=found.version,
            created_s=found.created_s,
        )

    def _migrated(self, found: Checkpoint) -> Plain:
        if found.version > self._version:
            raise ValueError(
                f"it was saved by a newer program (version {found.version}, ours is "
                f"{self._version})"
            )
        if self._migrate is None:
            raise ValueError(f"version {found.version} can't be read any more")
        return self._migrate(found.version, found.state)

    def _refuse(self, reason: str) -> Restored:
        self._context.log.error("checkpoint_refused", reason=reason)
        return Restored(outcome=Outcome.REFUSED, reason=reason)

    def _unavailable(self, reason: str) -> Restored:
        self._context.log.warning("checkpoint_unavailable", reason=reason)
        return Restored(outcome=Outcome.UNAVAILABLE, reason=reason)

    async def _call(self, method: str, body: Plain) -> Plain:
        return await self._context.call(DATABASE, method, body, timeout_s=self._timeout_s)
