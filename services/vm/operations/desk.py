"""Operations under way: one at a time for a guest or image, bounded, watched, remembered.

An operation outlives the call that began it: the caller may wait, look again, or leave.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from protocol.errors import NovacronError
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.records import Plain
from services.vm.errors import LibvirtLostError, LibvirtTimeoutError
from services.vm.operations.errors import (
    NoOperationError,
    OperationFailedError,
    OperationsFullError,
    OperationUnknownError,
)
from services.vm.operations.model import (
    OperationList,
    OperationQuery,
    OperationRecord,
    OperationState,
    Outcome,
)
from supervisor.child.service import ServiceContext

# Each costs a thread while libvirt works on it; a host's disks are busy long before this many.
UNFINISHED_MAX = 64
# Enough to look back on a morning; some 500 bytes each.
REMEMBERED_MAX = 256
_PROGRESS_STEP = 0.01

Work = Callable[["Progress"], Awaitable[Outcome]]


class Progress:
    """How an operation tells where it is."""

    def __init__(self, desk: Desk, number: int) -> None:
        self._desk = desk
        self._number = number

    def step(self, words: str) -> None:
        """This is being done now."""
        self._desk.update(self._number, step=words, progress=None)

    def at(self, fraction: float) -> None:
        """So much of the present step is done, from 0 to 1."""
        self._desk.update(self._number, progress=min(max(fraction, 0.0), 1.0))

    def tell(self, result: dict[str, Plain]) -> None:
        """What is known so far, for who asks; the end replaces it."""
        self._desk.update(self._number, result=result)


class Desk:
    """All operations of the service.

    Args:
        context: for events and the log.
    """

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._records: dict[int, OperationRecord] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._last_of: dict[str, int] = {}
        self._news = asyncio.Condition()
        self._wakers: set[asyncio.Task[None]] = set()
        self._next = 1

    def begin(
        self, method: str, key: str, work: Work, *, subject: str, uuid: str, caller: str
    ) -> int:
        """Have ``work`` done once all earlier operations with the same key are over.

        Returns:
            The operation's number.

        Raises:
            OperationsFullError: too many are under way.
        """
        if len(self._tasks) >= UNFINISHED_MAX:
            raise OperationsFullError(f"{UNFINISHED_MAX} operations are under way; wait for some")
        number, self._next = self._next, self._next + 1
        self._forget()
        self._records[number] = OperationRecord(
            id=number, method=method, subject=subject, uuid=uuid, caller=caller, began_s=time.time()
        )
        before = self._tasks.get(self._last_of.get(key, 0))
        if before is not None:
            earlier = self._records[self._last_of[key]]
            self.update(number, step=f"waiting for operation {earlier.id} ({earlier.method})")
        self._last_of[key] = number
        task = asyncio.create_task(self._run(number, before, work), name=f"operation-{number}")
        self._tasks[number] = task
        task.add_done_callback(lambda _task: self._over(number, key))
        return number

    def update(self, number: int, **changes: object) -> None:
        """Change a record and wake who waits for news of it."""
        self._records[number] = replace(self._records[number], **changes)  # type: ignore[arg-type] # fields of the record, named by this module alone
        self._wake()

    def list(self) -> OperationList:
        """All that is remembered, the newest last."""
        return OperationList(operations=tuple(self._records.values()))

    async def ask(self, query: OperationQuery) -> OperationRecord:
        """An operation, once it is over, has moved, or ``wait_s`` has passed.

        Raises:
            NoOperationError: there is none of that number.
        """
        if query.id not in self._records:
            raise NoOperationError(f"there is no operation {query.id}, or no longer")

        def has_news() -> bool:
            record = self._records[query.id]
            return record.state.is_final or _moved(record, query)

        try:
            async with asyncio.timeout(query.wait_s), self._news:
                await self._news.wait_for(has_news)
        except TimeoutError:
            pass
        return self._records[query.id]

    def cancel(self, number: int) -> OperationRecord:
        """End an operation where it can be ended; what has been done stays done.

        Raises:
            NoOperationError: there is none of that number.
        """
        if number not in self._records:
            raise NoOperationError(f"there is no operation {number}, or no longer")
        if (task := self._tasks.get(number)) is not None:
            task.cancel()
        return self._records[number]

    async def close(self) -> None:
        """End all of them; guests go on as they are."""
        tasks = (*self._tasks.values(), *self._wakers)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, number: int, before: asyncio.Task[None] | None, work: Work) -> None:
        try:
            if before is not None:
                await asyncio.wait((before,))
            self.update(number, state=OperationState.RUNNING, step="")
            outcome = await work(Progress(self, number))
        except asyncio.CancelledError:
            self._end(number, OperationState.CANCELLED, note="cancelled")
            raise
        except (OperationUnknownError, LibvirtLostError, LibvirtTimeoutError) as exc:
            self._fail(number, OperationState.UNKNOWN, exc)
        except NovacronError as exc:
            self._fail(number, OperationState.FAILED, exc)
        except OSError as exc:
            self._fail(number, OperationState.FAILED, OperationFailedError(str(exc)))
        else:
            self._end(
                number,
                OperationState.DONE,
                note=outcome.note,
                changed=outcome.changed,
                result=outcome.result,
            )

    def _fail(self, number: int, state: OperationState, error: NovacronError) -> None:
        code = error.code if state is OperationState.FAILED else OperationUnknownError.code
        text = error.message
        if state is OperationState.UNKNOWN:
            text += "; it may still be carried out: look at the guest before trying again"
        self._end(number, state, error_code=code, error=text)

    def _end(self, number: int, state: OperationState, **changes: object) -> None:
        self.update(number, state=state, ended_s=time.time(), **changes)
        record = self._records[number]
        fields = {
            "id": number,
            "method": record.method,
            "vm": record.subject,
            "uuid": record.uuid,
            "state": state.value,
            "detail": record.error or record.note,
            "duration_s": round((record.ended_s or 0.0) - record.began_s, 3),
        }
        self._context.log.info("operation_ended", caller=record.caller, **fields)
        self._context.emit("vm:operation", **fields)
        labels = {"method": record.method, "state": state.value}
        self._context.measure(
            MetricSample(MetricKind.COUNTER, "novacron_vm_operations_total", 1, labels)
        )

    def _over(self, number: int, key: str) -> None:
        task = self._tasks.pop(number)
        if self._last_of.get(key) == number:
            del self._last_of[key]
        error = None if task.cancelled() else task.exception()
        if error is not None:  # our own mistake: the service ends, and says so first
            text = f"internal error: {error!r:.200}"
            self._end(number, OperationState.FAILED, error_code="novacron.error", error=text)
            self._context.fail(error)
        elif not self._records[number].state.is_final:  # cancelled before its first step
            self._end(number, OperationState.CANCELLED, note="cancelled")

    def _forget(self) -> None:
        over = [number for number, record in self._records.items() if record.state.is_final]
        for number in over[: max(len(self._records) - REMEMBERED_MAX + 1, 0)]:
            del self._records[number]

    def _wake(self) -> None:
        async def notify() -> None:
            async with self._news:
                self._news.notify_all()

        task = asyncio.get_running_loop().create_task(notify())
        self._wakers.add(task)
        task.add_done_callback(self._wakers.discard)


def _moved(record: OperationRecord, query: OperationQuery) -> bool:
    if query.seen is not None and record.step != query.seen:
        return True
    if query.seen is None or record.progress is None:
        return False
    return abs(record.progress - (query.seen_progress or 0.0)) >= _PROGRESS_STEP
