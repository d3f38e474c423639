"""Reading the node's status from its root, once for everybody who asks at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from protocol.errors import NovacronError
from protocol.messages.status import NodeStatus
from protocol.names import ROOT
from protocol.records import Plain, from_wire
from services.telemetry.model import Reading
from supervisor.child.service import ServiceContext

# A busy root answers in milliseconds; one that takes longer than this is itself the news.
STATUS_TIMEOUT_S = 2.0
# A flood of probes and scrapes costs the root no more than this allows.
AGE_MAX_S = 1.0


class StatusReader:
    """The last status, and a way to a fresh one.

    Polling on a clock was rejected: collecting the status measures the memory of every process,
    which an idle node should not pay for while nobody looks.

    Args:
        context: to call the root with.
        seen: told of every status that arrives.
        with_memory: let the root measure the memory of every process, which costs it some
            milliseconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        context: ServiceContext,
        seen: Callable[[NodeStatus], None] | None = None,
        *,
        with_memory: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._seen = seen
        self._body: Plain = {"memory": True} if with_memory else None
        self._clock = clock
        self._status: NodeStatus | None = None
        self._error = ""
        self._answered_s = self._asked_s = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    def last(self) -> Reading:
        """What is known without asking."""
        age_s = self._clock() - self._answered_s if self._status is not None else 0.0
        return Reading(self._status, age_s, self._error)

    async def read(self, *, age_max_s: float = AGE_MAX_S) -> Reading:
        """What is known, after asking the root when that is older than ``age_max_s``.

        Never raises on a root that does not answer: the reading then carries the error.
        """
        if self._asking is None and self._clock() - self._asked_s >= age_max_s:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        if self._asking is not None:
            # Shielded: the first to ask may give up while others still wait for the answer.
            await asyncio.shield(self._asking)
        return self.last()

    async def _ask(self) -> None:
        try:
            answer = await self._context.call(
                ROOT, "status", self._body, timeout_s=STATUS_TIMEOUT_S
            )
            self._status = from_wire(NodeStatus, answer)
        except NovacronError as exc:
            self._error = f"the root supervisor did not answer: {exc}"
        else:
            self._error = ""
            self._answered_s = self._clock()
            if self._seen is not None:
                self._seen(self._status)
        finally:
            self._asked_s = self._clock()
            self._asking = None
