"""Answers to who asks for audit records, and waits for the next ones."""

from __future__ import annotations

import json
import time

from protocol.records import Plain
from services.security.audit import AuditRecord
from services.security.audit_lines import record_map
from services.security.model import RecordsPage, RecordsRequest
from services.security.ports import AuditStore
from services.security.recorder import Recorder

RECORDS_MAX = 500
# Of one answer: a message holds 1 MiB.
ANSWER_BYTES_MAX = 512 << 10


async def answer(
    request: RecordsRequest, store: AuditStore, recorder: Recorder, *, wait_s: float
) -> RecordsPage:
    """Some records, as soon as there are any.

    Args:
        request: which.
        store: the chain, over a connection that nobody else uses.
        recorder: says when something was chained.
        wait_s: for how long to wait at most.

    Raises:
        AuditUnavailableError: the database can't be reached.
    """
    limit = max(1, min(request.limit, RECORDS_MAX))
    deadline_s = time.monotonic() + wait_s
    while True:
        head = recorder.head_seq
        records = await store.page(
            first=0 if request.after is None else request.after + 1,
            last=None,
            limit=limit,
            wanted=request.filter,
            newest_first=request.after is None,
        )
        remaining_s = deadline_s - time.monotonic()
        if records or request.after is None or remaining_s <= 0:
            break
        await store.close()  # who waits takes no connection
        await recorder.wait_past(head, remaining_s)
    lines = _fitting(records, keep_newest=request.after is None)
    newest = records[-1].seq if request.after is None and records else 0
    after = int(lines[-1]["seq"]) if lines else max(head, newest, request.after or 0)
    return RecordsPage(records=tuple(lines), after=after)


def _fitting(records: tuple[AuditRecord, ...], *, keep_newest: bool) -> list[dict[str, Plain]]:
    lines: list[dict[str, Plain]] = []
    size = 0
    for record in reversed(records) if keep_newest else records:
        line = record_map(record)
        size += len(json.dumps(line))
        if lines and size > ANSWER_BYTES_MAX:
            break
        lines.append(line)
    return lines[::-1] if keep_newest else lines
