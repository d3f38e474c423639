"""Follow the node's journal: one long poll after the other, through whatever happens to the root.

Used by every process that acts on what happens in the node. The reader asks the root for records
from a number on; the root answers when there are some, or after ``wait_s`` with none.

    the root does not answer    asked again, with pauses that double up to PAUSE_MAX_S
    another boot's numbering    read from its first record; the reply itself is put away
    records no longer kept      the page says how many in ``lost``; the handler decides
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from protocol.errors import CallTimeoutError, PeerUnavailableError, RemoteCallError
from protocol.messages.journal import JournalPage, JournalQuery
from protocol.messages.status import NodeStatus
from protocol.names import ROOT
from protocol.records import from_wire, to_wire
from services.data.retry import RetryPolicy, retry_pause_s
from supervisor.child.service import ServiceContext

PageHandler = Callable[[JournalPage], Awaitable[None]]

# Long enough to cost nothing, short enough for a reader that says "still here" with each page.
WAIT_S = 20.0
# A root that is busy answers late; one that stopped answering is asked anew.
REPLY_MARGIN_S = 5.0
PAUSE_MAX_S = 2.0
# What a reply that came at once with nothing in it costs, lest a loop run hot.
_EMPTY_PAUSE_S = 0.1
_RETRY = RetryPolicy(attempts=None, initial_s=0.05, factor=2.0, max_s=PAUSE_MAX_S)


async def read_status(context: ServiceContext) -> NodeStatus | None:
    """The whole node as it is now, for a reader that missed records; None if it can't be had."""
    try:
        return from_wire(NodeStatus, await context.call(ROOT, "status"))
    except (PeerUnavailableError, CallTimeoutError, RemoteCallError) as exc:
        context.log.warning("status_not_read", reason=str(exc))
        return None


async def follow(
    context: ServiceContext,
    handler: PageHandler,
    *,
    since: int = 0,
    boot_id: str = "",
    wait_s: float = WAIT_S,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Hand every page to ``handler``, in order, until cancelled.

    A page may be empty: then ``wait_s`` passed without a record.

    Args:
        context: calls the root.
        handler: takes one page; the next one is asked for when it returns.
        since: the first record wanted; 0 for all that the journal keeps.
        boot_id: the boot that ``since`` counts in; "" when the caller does not know.
        wait_s: how long the root may hold an answer back.
        sleep: waits between attempts.
        clock: monotonic seconds.

    Raises:
        RemoteCallError: the root refuses the call, and would again.
        RemoteProtocolError: the root answered something else than a page.
        Exception: what ``handler`` raises.
    """
    failed = 0
    task = asyncio.current_task()
    while True:
        # Python 3.11's wait_for, which libraries use, may swallow a cancellation.
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        query = JournalQuery(since=since, wait_s=wait_s)
        asked = clock()
        try:
            reply = await context.call(
                ROOT, "journal", to_wire(query), timeout_s=wait_s + REPLY_MARGIN_S
            )
        except (PeerUnavailableError, CallTimeoutError, RemoteCallError) as exc:
            if isinstance(exc, RemoteCallError) and not exc.remote_retryable:
                raise
            failed += 1
            await sleep(retry_pause_s(_RETRY, failed) or PAUSE_MAX_S)
            continue
        failed = 0
        page = from_wire(JournalPage, reply)
        if boot_id and page.boot_id != boot_id and since > 0:
            boot_id, since = page.boot_id, 0
            continue
        await handler(page)
        boot_id, since = page.boot_id, page.next
        if not page.records and clock() - asked < min(wait_s, _EMPTY_PAUSE_S):
            await sleep(_EMPTY_PAUSE_S)
