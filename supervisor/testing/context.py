"""The in-memory twin of a service's context."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from protocol.errors import CallTimeoutError, PeerUnavailableError
from protocol.messages.health import Health, HealthState
from protocol.messages.metrics import MetricSample
from protocol.records import Plain
from supervisor.child.service import Request

PeerHandler = Callable[[Request], Awaitable[Plain]]


class MemoryServiceContext:
    """A ServiceContext that records what the service does and answers its calls from a table.

    Args:
        path: the service's path in the tree.
        settings: the settings of its ChildSpec.
        peers: handlers by process path and method; a missing path is a process that is down.

    Attributes:
        events: emitted events as (name, fields), in order.
        health: the last health that was set; starting until then.
        samples: measured samples, in order.
        casts: casts as (path, method, body), in order.
        failures: errors handed to ``fail``, in order.
    """

    def __init__(
        self,
        *,
        path: str,
        settings: Mapping[str, Plain] | None = None,
        peers: Mapping[str, Mapping[str, PeerHandler]] | None = None,
    ) -> None:
        self._path = path
        self._settings = dict(settings or {})
        self._peers = {name: dict(methods) for name, methods in (peers or {}).items()}
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger(component=path)
        self.events: list[tuple[str, dict[str, Plain]]] = []
        self.health = Health(HealthState.STARTING)
        self.samples: list[MetricSample] = []
        self.casts: list[tuple[str, str, Plain]] = []
        self.failures: list[BaseException] = []

    @property
    def path(self) -> str:
        """The process's path in the tree."""
        return self._path

    @property
    def settings(self) -> Mapping[str, Plain]:
        """The settings of the ChildSpec."""
        return self._settings

    @property
    def log(self) -> structlog.typing.FilteringBoundLogger:
        """The process's logger."""
        return self._log

    async def call(
        self, path: str, method: str, body: Plain = None, *, timeout_s: float = 5.0
    ) -> Plain:
        """Run the peer's handler, with the same deadline and errors as the real context."""
        handler = self._peers.get(path, {}).get(method)
        if handler is None:
            raise PeerUnavailableError(f"{path} is not running", path=path)
        request = Request(self._path, method, body, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await handler(request)
        except TimeoutError:
            raise CallTimeoutError(f"{path} did not answer {method} in {timeout_s} s") from None

    async def cast(self, path: str, method: str, body: Plain = None) -> bool:
        """Record the cast; False when the peer is not in the table."""
        self.casts.append((path, method, body))
        return path in self._peers

    def emit(self, name: str, **fields: Plain) -> None:
        """Record the event."""
        self.events.append((name, fields))

    def measure(self, sample: MetricSample) -> None:
        """Record the sample."""
        self.samples.append(sample)

    def set_health(self, health: Health) -> None:
        """Record the health."""
        self.health = health

    def fail(self, error: BaseException) -> None:
        """Record the error."""
        self.failures.append(error)
