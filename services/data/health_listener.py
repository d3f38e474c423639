"""Keeps a view of all nodes current: listens for changes, reads what changed, tells who waits.

    connected           LISTEN first, then read everything: nothing can happen in between unseen
    a notification      read the nodes that it names; many at once are read together
    a lease ends        read everything: it may have been renewed, which is told to nobody
    every reread_s      read everything again, whatever was or was not heard
    connection lost     leases end by what is known; a new connection begins with reading everything

Invariant: a view that calls itself current misses no change older than ``reread_s``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence

import psycopg
from psycopg import Notify

from protocol.errors import NovacronError
from services.data.health_records import NodeHealth
from services.data.health_table import CHANNEL, Connection, read_view
from services.data.health_view import HealthView, NodeChange
from services.data.retry import RetryPolicy, retry_pause_s

# A statement on this connection that takes longer is a connection that is dead.
READ_TIMEOUT_S = 5.0
# More nodes than this that changed at once: reading all is one query as well.
NAMED_MAX = 100
# A lease that ends now is looked at a moment later, not in a hot loop.
_EXPIRY_MARGIN_S = 0.01
_RETRY = RetryPolicy(attempts=None, initial_s=0.1, factor=2.0, max_s=5.0)

Connect = Callable[[], Awaitable[Connection]]
Report = Callable[[Sequence[NodeChange]], None]


class HealthListener:
    """A view of all nodes that others can wait on.

    Args:
        connect: opens a connection of its own, in autocommit mode.
        report: told how nodes stand otherwise than before; not of what the first reading finds.
        on_lost: told why a connection ended.
        reread_s: how often everything is read; less than the time for which a lease is renewed.
    """

    def __init__(
        self,
        connect: Connect,
        report: Report,
        on_lost: Callable[[str], None],
        *,
        reread_s: float,
    ) -> None:
        self._reread_s = reread_s
        self._connect = connect
        self._report = report
        self._on_lost = on_lost
        self._view = HealthView()
        self._run_id = uuid.uuid4().hex[:12]
        self._is_current = False
        self._is_filled = False
        self._news = asyncio.Event()

    @property
    def is_current(self) -> bool:
        """Changes arrive."""
        return self._is_current

    @property
    def mark(self) -> str:
        """Another one as soon as there is something to see."""
        return f"{self._run_id}.{self._view.version}.{self._is_current:d}"

    def nodes(self) -> tuple[NodeHealth, ...]:
        """All nodes as they are now."""
        self._expire()
        return self._view.nodes(time.monotonic())

    async def wait_news(self, mark: str, wait_s: float) -> None:
        """Return when ``mark`` is no longer the mark, or after ``wait_s``."""
        end_s = time.monotonic() + wait_s
        self._expire()
        while mark == self.mark and (left_s := end_s - time.monotonic()) > 0:
            news = self._news
            if not self._is_current:
                left_s = min(left_s, self._until_expiry_s())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await news.wait()
            self._expire()

    async def run(self) -> None:
        """Listen until cancelled, through any loss of the server."""
        failed = 0
        while True:
            try:
                async with await self._connect() as connection:
                    failed = 0
                    await self._listen(connection)
            except (psycopg.Error, NovacronError, TimeoutError) as exc:
                failed += 1
                if self._is_current or failed == 1:
                    self._on_lost(str(exc) or type(exc).__name__)
                self._is_current = False
                self._tell()
            await asyncio.sleep(retry_pause_s(_RETRY, max(1, failed)) or _RETRY.max_s)

    async def _listen(self, connection: Connection) -> None:
        await connection.execute(f"LISTEN {CHANNEL}")
        await self._read(connection, None)
        self._is_current = True
        self._tell()
        while True:
            names: set[str] | None = set()
            left_s = min(self._reread_s, self._until_expiry_s())
            is_heard = False
            async for notify in connection.notifies(timeout=left_s, stop_after=1):
                names, is_heard = _with_name(names, notify), True
            await self._read(connection, names if is_heard else None)

    def _until_expiry_s(self) -> float:
        expiry_s = self._view.next_expiry_s(time.monotonic())
        return float("inf") if expiry_s is None else expiry_s + _EXPIRY_MARGIN_S

    async def _read(self, connection: Connection, names: set[str] | None) -> None:
        if names is not None and len(names) > NAMED_MAX:
            names = None
        async with asyncio.timeout(READ_TIMEOUT_S):
            rows = await read_view(connection, None if names is None else sorted(names))
        asked = None if names is None else frozenset(names)
        self._changed(self._view.take(rows, asked=asked, now_s=time.monotonic()))

    def _expire(self) -> None:
        if not self._is_current:
            self._changed(self._view.expire(time.monotonic()))

    def _changed(self, changes: list[NodeChange]) -> None:
        if changes and self._is_filled:
            self._report(changes)
        self._is_filled = True
        self._tell()  # the mark may be another one with no node standing otherwise

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _with_name(names: set[str] | None, notify: Notify) -> set[str] | None:
    """The nodes to be read, with the one that the notification names; None for all."""
    if names is None:
        return None
    try:
        return names | {str(json.loads(notify.payload)["node_id"])}
    except (ValueError, KeyError, TypeError):  # not ours; somebody else notified
        return None
