"""The behaviour of a supervised Python child, and what it is given to work with.

``Service`` runs on an asyncio loop and suits nearly everything. ``BlockingService`` owns a plain
loop, for processes that move bytes. Both are created without arguments in a fresh process; all
that they need arrives through the context.

    class Clock(Service):
        async def init(self, context: ServiceContext) -> None:
            self.context = context

        def calls(self) -> Mapping[str, CallHandler]:
            return {"now": self.now}

        def now(self, request: Request) -> Plain:
            return {"seconds": time.time()}
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol

from protocol.dataclass import dataclass
from protocol.errors import NovacronError
from protocol.messages.health import HEALTHY, Health
from protocol.messages.metrics import MetricSample
from protocol.records import Plain

if TYPE_CHECKING:  # programs have no use for it, and their launcher imports this
    import structlog


class CriticalError(NovacronError):
    """The child can't do its work and a restart would not help: the tree stops.

    Raise it, or a subclass, from ``init`` or anywhere in the service's own tasks.
    """

    code: ClassVar[str] = "supervisor.critical"


@dataclass(frozen=True, slots=True)
class Request:
    """One call or cast that arrived.

    Attributes:
        caller: path of the calling process as its CURVE key proves it, or ``operator``.
        method: what was called.
        body: plain value, not validated beyond the codec; use protocol.records.from_wire.
        remaining_s: how long the caller still waits; infinite for a cast.
    """

    caller: str
    method: str
    body: Plain
    remaining_s: float


# A plain function is answered at once, so it must not wait for anything; a coroutine function
# runs in a task of its own and ends at the caller's deadline.
CallHandler = Callable[[Request], Awaitable[Plain]] | Callable[[Request], Plain]


class ServiceContext(Protocol):
    """What a running service may use. ``supervisor.testing.context`` has the memory twin."""

    @property
    def path(self) -> str:
        """The process's path in the tree, such as ``core/vm``."""

    @property
    def settings(self) -> Mapping[str, Plain]:
        """The settings of the ChildSpec."""

    @property
    def log(self) -> structlog.typing.FilteringBoundLogger:
        """The process's logger, with ``component`` bound."""

    async def call(
        self, path: str, method: str, body: Plain = None, *, timeout_s: float = 5.0
    ) -> Plain:
        """Call a method of another process and wait for its reply.

        Raises:
            PeerUnavailableError: the process has published no key or endpoint.
            CallTimeoutError: no reply within ``timeout_s``.
            RemoteCallError: the method failed; ``remote_code`` names the error.
        """

    async def cast(self, path: str, method: str, body: Plain = None) -> bool:
        """Send without waiting for an answer; False when it had to be dropped."""

    def emit(self, name: str, **fields: Plain) -> None:
        """Publish an event of this component into the node's journal, such as ``vm:started``.

        Never blocks; a process that emits faster than the journal takes loses events and the
        loss is counted and logged.
        """

    def measure(self, sample: MetricSample) -> None:
        """Record a metric sample; batches go to telemetry every few seconds, never blocking."""

    def set_health(self, health: Health) -> None:
        """Say how the component is; the supervisor, status and health endpoints follow."""

    def fail(self, error: BaseException) -> None:
        """End the process because of an error in one of its own tasks, as if init had raised."""


class Service:
    """A child on an asyncio loop. Override what is needed; the base does nothing."""

    async def init(self, context: ServiceContext) -> None:
        """Come up; the child is ready when this returns. Raising fails the start.

        Raises:
            CriticalError: trying again would not help.
        """

    def calls(self) -> Mapping[str, CallHandler]:
        """The methods that other processes may call or cast, by name."""
        return {}

    async def check(self) -> Health:
        """Probe the component now; used by health validation. The default is healthy."""
        return HEALTHY

    async def terminate(self) -> None:
        """Go down in an orderly way, within the ChildSpec's shutdown time."""


class BlockingContext(Protocol):
    """What a running blocking service may use; none of it blocks."""

    @property
    def path(self) -> str:
        """The process's path in the tree."""

    @property
    def settings(self) -> Mapping[str, Plain]:
        """The settings of the ChildSpec."""

    @property
    def log(self) -> structlog.typing.FilteringBoundLogger:
        """The process's logger, with ``component`` bound."""

    def control_fd(self) -> int:
        """A descriptor that becomes readable when ``turn`` has something to do."""

    def turn(self) -> bool:
        """Beat, take in what arrived and carry out calls. False once the service must stop.

        Call it at least every ``liveness.period_s`` and whenever ``control_fd`` is readable.
        """

    def ready(self) -> None:
        """Say that the service is up."""

    def emit(self, name: str, **fields: Plain) -> None:
        """Publish an event of this component into the node's journal."""

    def measure(self, sample: MetricSample) -> None:
        """Record a metric sample."""

    def set_health(self, health: Health) -> None:
        """Say how the component is."""


BlockingCallHandler = Callable[[Request], Plain]


class BlockingService:
    """A child with a loop of its own."""

    def calls(self) -> Mapping[str, BlockingCallHandler]:
        """The methods that other processes may call or cast; run inside ``turn``."""
        return {}

    def run(self, context: BlockingContext) -> None:
        """Run until ``context.turn()`` says False; call ``context.ready()`` once up."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Command:
    """What a command child executes.

    A start function ``prepare(settings: Mapping[str, Plain]) -> Command`` runs in the new process
    as the ChildSpec's user, may prepare files, and returns this. The program says ``READY=1`` on
    NOTIFY_SOCKET (sd_notify) when it is up.

    Attributes:
        argv: program (absolute path) and arguments.
        environment: variables beside PATH, LANG and what readiness and credentials add.
        directory: where it works; "" for ``/``.
        umask: for files that it makes.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str = ""
    umask: int = 0o022
