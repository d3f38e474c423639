"""Answers to who looks at the log."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import structlog

from services.security.audit_file import AuditFile, WaitingFile
from services.security.audit_records import ANSWER_BYTES_MAX, answer
from services.security.audit_statements import StatementFile
from services.security.memory import MemoryAuditStore
from services.security.model import RecordFilter, RecordsPage, RecordsRequest
from services.security.recorder import Recorder
from tests.fixtures.audit_chains import EVENT, SIGNER, events

DEADLINE_S = 10.0


class Bench:
    """A recorder over a memory store with ten records."""

    def __init__(self, directory: Path) -> None:
        self.store = MemoryAuditStore(node_id="n", signer=SIGNER)
        self.recorder = Recorder(
            store=self.store,
            copy=AuditFile(directory / "audit.jsonl"),
            waiting=WaitingFile(directory / "waiting.jsonl"),
            statements=StatementFile(directory / "checkpoints.jsonl"),
            log=structlog.get_logger(),
            on_change=lambda: None,
            on_appended=lambda _count: None,
        )

    async def ask(self, request: RecordsRequest, wait_s: float = 0.0) -> RecordsPage:
        """Ask for records."""
        return await answer(request, self.store, self.recorder, wait_s=wait_s)


def seqs(page: RecordsPage) -> list[int]:
    """The numbers of a page's records."""
    return [record["seq"] for record in page.records]


def test_the_newest_and_the_next_ones(tmp_path: Path) -> None:
    """Without a place the newest, with one what follows it, and the place to go on from."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        empty = await bench.ask(RecordsRequest())
        await bench.recorder.append_now(events(10))

        newest = await bench.ask(RecordsRequest(limit=3))
        next_ones = await bench.ask(RecordsRequest(after=4, limit=2))
        none = await bench.ask(RecordsRequest(after=10))

        assert (seqs(empty), empty.after) == ([], 0)
        assert (seqs(newest), newest.after) == ([8, 9, 10], 10)
        assert (seqs(next_ones), next_ones.after) == ([5, 6], 6)
        assert (seqs(none), none.after) == ([], 10)

    asyncio.run(scenario())


def test_who_waits_is_woken_by_the_next_record_that_matches(tmp_path: Path) -> None:
    """A record that does not match wakes, is passed over, and is not looked at again."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        await bench.recorder.append_now(events(2))
        request = RecordsRequest(after=2, filter=RecordFilter(actor="core/*", outcome="denied"))
        waiting = asyncio.create_task(bench.ask(request, DEADLINE_S))
        await asyncio.sleep(0)

        await bench.recorder.append_now(events(1, first=3))
        await asyncio.sleep(0)
        assert not waiting.done()
        await bench.recorder.append_now([replace(EVENT, journal_seq=4, outcome="denied")])
        page = await asyncio.wait_for(waiting, DEADLINE_S)
        later = await bench.ask(request)

        assert (seqs(page), page.after) == ([4], 4)
        assert later.after == 4

    asyncio.run(scenario())


def test_an_answer_fits_into_a_message(tmp_path: Path) -> None:
    """Large records are given in parts: the newest of the newest, else the oldest first."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        large = {"text": "x" * 16000}
        many = [replace(event, fields=large) for event in events(60)]
        await bench.recorder.append_now(many)

        newest = await bench.ask(RecordsRequest(limit=60))
        oldest = await bench.ask(RecordsRequest(after=0, limit=60))

        assert 20 < len(newest.records) < ANSWER_BYTES_MAX / 16000
        assert seqs(newest)[-1] == newest.after == 60
        assert seqs(oldest)[0] == 1
        assert oldest.after == len(oldest.records)

    asyncio.run(scenario())
