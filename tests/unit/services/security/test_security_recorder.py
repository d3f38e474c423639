"""The recorder: order, loss of the store, bounds, and what a restart finds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from services.security import recorder as recording
from services.security.audit import AuditEvent, row_of
from services.security.audit_chain import ChainVerifier, Witness
from services.security.audit_file import AuditFile, WaitingFile
from services.security.audit_statements import StatementFile
from services.security.errors import (
    AuditQueueFullError,
    AuditSchemaError,
    AuditUnavailableError,
)
from services.security.keyring import derive_keyring
from services.security.memory import MemoryAuditStore
from services.security.model import Finding
from services.security.recorder import Recorder

SIGNER = derive_keyring(bytes(32)).signer
KEYS = {SIGNER.key_id: SIGNER.public_key}
EVENT = AuditEvent(
    time_us=1, actor="a", action="vm:started", subject="s", outcome="success",
    boot_id="b", journal_seq=1,
)  # fmt: skip
DEADLINE_S = 10.0


class Bench:
    """A recorder over a memory store and files in a directory."""

    def __init__(self, directory: Path, store: MemoryAuditStore | None = None) -> None:
        self.store = store or MemoryAuditStore(node_id="n", signer=SIGNER)
        self.directory = directory
        self.changes = 0
        self.counted = 0
        self.recorder = Recorder(
            store=self.store,
            copy=AuditFile(directory / "audit.jsonl"),
            waiting=WaitingFile(directory / "waiting.jsonl"),
            log=structlog.get_logger(),
            on_change=self._changed,
            on_appended=self._appended,
            statements=StatementFile(directory / "checkpoints.jsonl"),
            retry_initial_s=0.001,
        )

    def _changed(self) -> None:
        self.changes += 1

    def _appended(self, records: int) -> None:
        self.counted += records

    def copied(self) -> list[int]:
        """Sequence numbers in the audit file."""
        text = (self.directory / "audit.jsonl").read_text()
        return [json.loads(line)["seq"] for line in text.splitlines()]

    def waiting(self) -> list[int]:
        """Journal sequence numbers in the waiting file."""
        events = WaitingFile(self.directory / "waiting.jsonl").read()
        return [event.journal_seq for event in events]


def event(journal_seq: int) -> AuditEvent:
    """An event with a source of its own."""
    return replace(EVENT, journal_seq=journal_seq)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until a condition holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - the condition is other objects' state
            await asyncio.sleep(0)


def test_events_are_chained_in_order_and_copied(tmp_path: Path) -> None:
    """What is put in ends in the chain and in the file, once and in order."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        writer = asyncio.create_task(bench.recorder.run())

        for seq in range(1, 301):
            await bench.recorder.put(event(seq))
        left = await bench.recorder.drain(DEADLINE_S)
        writer.cancel()

        assert left == 0
        assert [record.event.journal_seq for record in bench.store.records] == [*range(1, 301)]
        assert bench.copied() == [*range(1, 301)]
        assert bench.store.appends <= 4  # batches, not one transaction per event
        assert bench.counted == 300
        assert bench.recorder.statistics().waiting == 0
        verifier = ChainVerifier(KEYS)
        rows = [row_of(record) for record in bench.store.records]
        assert verifier.check(rows, bench.store.kept) is None
        assert verifier.finish(bench.store.signed_head) is None
        assert verifier.count == 300

    asyncio.run(scenario())


def test_an_append_returns_the_place_in_the_chain(tmp_path: Path) -> None:
    """A caller that waits learns the sequence number, and the same one for a repetition."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        writer = asyncio.create_task(bench.recorder.run())

        seqs = [await bench.recorder.append(event(n), timeout_s=DEADLINE_S) for n in (1, 2, 1)]
        writer.cancel()

        assert seqs == [1, 2, 1]
        assert (len(bench.store.records), bench.counted) == (2, 2)

    asyncio.run(scenario())


def test_events_wait_in_the_file_while_the_store_is_away(tmp_path: Path) -> None:
    """A lost store is told once, events are kept, and all are chained when it is back."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.store.unavailable = "gone"
        writer = asyncio.create_task(bench.recorder.run())

        seqs = [await bench.recorder.append(event(n), timeout_s=DEADLINE_S) for n in (1, 2, 3)]
        await until(lambda: bench.store.appends >= 3)

        assert seqs == [None, None, None]
        assert bench.recorder.trouble == "gone"
        assert bench.changes == 1
        assert bench.waiting() == [1, 2, 3]
        bench.store.unavailable = ""
        assert await bench.recorder.drain(DEADLINE_S) == 0
        await until(lambda: bench.changes == 2)
        writer.cancel()
        assert bench.recorder.trouble == ""
        assert [record.event.journal_seq for record in bench.store.records] == [1, 2, 3]
        assert bench.waiting() == []

    asyncio.run(scenario())


def test_a_restart_chains_what_waited_once(tmp_path: Path) -> None:
    """Events of a process that ended meanwhile are chained, those that are there already too."""

    async def scenario() -> None:
        first = Bench(tmp_path)
        await first.recorder.append_now([event(1)])
        first.store.unavailable = "gone"
        writer = asyncio.create_task(first.recorder.run())
        for seq in (1, 2, 3):
            await first.recorder.put(event(seq))
        left = await first.recorder.drain(0.05)
        writer.cancel()
        first.store.unavailable = ""

        second = Bench(tmp_path, first.store)
        recovered = await second.recorder.recover()

        assert (left, recovered) == (3, 3)
        assert [record.event.journal_seq for record in second.store.records] == [1, 2, 3]
        assert second.copied() == [1, 2, 3]
        assert second.waiting() == []

    asyncio.run(scenario())


def test_a_full_queue_refuses_callers_and_lets_the_journal_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the bound nothing is dropped: one side gets an error, the other one waits."""
    monkeypatch.setattr(recording, "QUEUE_MAX", 2)

    async def scenario() -> None:
        bench = Bench(tmp_path)
        await bench.recorder.put(event(1))
        await bench.recorder.put(event(2))
        third = asyncio.create_task(bench.recorder.put(event(3)))
        await asyncio.sleep(0)

        with pytest.raises(AuditQueueFullError):
            await bench.recorder.append(event(4), timeout_s=DEADLINE_S)
        assert not third.done()
        assert bench.recorder.statistics().refused == 1
        writer = asyncio.create_task(bench.recorder.run())
        await asyncio.wait_for(third, DEADLINE_S)
        await bench.recorder.drain(DEADLINE_S)
        writer.cancel()
        assert [record.event.journal_seq for record in bench.store.records] == [1, 2, 3]

    asyncio.run(scenario())


def test_a_caller_without_store_and_file_gets_an_error(tmp_path: Path) -> None:
    """When neither database nor disk take an event, nobody is told that it is safe."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.store.unavailable = "gone"
        bench.recorder._waiting.add = _disk_full  # type: ignore[method-assign]  # a full disk
        writer = asyncio.create_task(bench.recorder.run())

        with pytest.raises(AuditUnavailableError):
            await bench.recorder.append(event(1), timeout_s=0.05)
        bench.store.unavailable = ""
        await bench.recorder.drain(DEADLINE_S)
        writer.cancel()
        assert len(bench.store.records) == 1

    asyncio.run(scenario())


def test_a_file_that_cannot_be_written_is_told_and_caught_up(tmp_path: Path) -> None:
    """The chain goes on without its copy, which gets everything as soon as it can."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        write = bench.recorder._copy.append
        bench.recorder._copy.append = _disk_full  # type: ignore[method-assign]  # a full disk
        await bench.recorder.append_now([event(1)])
        await bench.recorder.append_now([event(2)])

        assert "No space left" in bench.recorder.copy_trouble
        assert (bench.changes, bench.copied()) == (1, [])
        bench.recorder._copy.append = write  # type: ignore[method-assign]  # room again
        await bench.recorder.append_now([event(3)])
        assert bench.recorder.copy_trouble == ""
        assert bench.copied() == [1, 2, 3]

    asyncio.run(scenario())


def test_a_store_that_refuses_for_good_ends_the_writer(tmp_path: Path) -> None:
    """An error that no retry mends is not swallowed."""

    class Refusing(MemoryAuditStore):
        async def append(self, events: object) -> tuple[()]:  # type: ignore[override]  # raises
            raise AuditSchemaError("no such table")

    async def scenario() -> None:
        bench = Bench(tmp_path, Refusing(node_id="n", signer=SIGNER))
        await bench.recorder.put(event(1))

        with pytest.raises(AuditSchemaError):
            await asyncio.wait_for(bench.recorder.run(), DEADLINE_S)

    asyncio.run(scenario())


def test_a_cut_chain_shows_against_the_file(tmp_path: Path) -> None:
    """Without the newest records the chain is whole, and only the node's own file tells."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        records = await bench.recorder.append_now([event(n) for n in (1, 2, 3)])
        witness = Witness(tail_seq=3, tail_hash=records[-1].hash)

        verifier = ChainVerifier(KEYS, witness=witness)

        assert verifier.check([row_of(record) for record in records[:2]]) is None
        bad = verifier.finish(None)
        assert bad is not None
        assert (bad.seq, bad.kind) == (3, Finding.TRUNCATED)

    asyncio.run(scenario())


def test_checkpoints_reach_their_file(tmp_path: Path) -> None:
    """What the store keeps is in the node's own file when the append returns."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        await bench.recorder.append_now([event(n) for n in (1, 2, 3)])

        found = StatementFile(tmp_path / "checkpoints.jsonl")

        assert found.digests == {3: bench.store.kept[0].digest()}

    asyncio.run(scenario())


def test_many_events_are_safe_when_they_are_taken_together(tmp_path: Path) -> None:
    """Events of a spool are in the chain, or in the file while the store is away."""

    async def scenario() -> None:
        bench = Bench(tmp_path)
        writer = asyncio.create_task(bench.recorder.run())
        await bench.recorder.append_all([event(n) for n in (1, 2)])
        bench.store.unavailable = "gone"

        await bench.recorder.append_all([event(n) for n in (3, 4)])
        writer.cancel()

        assert len(bench.store.records) == 2
        assert bench.waiting() == [3, 4]

    asyncio.run(scenario())


def _disk_full(_items: object) -> None:
    raise OSError(28, "No space left on device")
