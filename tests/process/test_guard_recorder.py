"""Recording by a thread: a loop never waits, and nothing goes on that is not on disk."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.envelope import Envelope, Kind
from protocol.errors import NovacronError
from supervisor.guard import recorder as recorders
from supervisor.guard import spool
from supervisor.guard.gate import Gate
from supervisor.guard.guard import REFUSED, Verdict
from supervisor.guard.recorder import Recorder
from supervisor.guard.spool import Note

pytestmark = pytest.mark.process


class Loop:
    """What a loop does for a recorder: wait for descriptors, and turn."""

    def __init__(self) -> None:
        self._takers: dict[int, Callable[[], None]] = {}

    def attach(self, descriptor: int, take: Callable[[], None]) -> None:
        """Have a function called."""
        self._takers[descriptor] = take

    def until(self, condition: Callable[[], object], timeout_s: float = 5.0) -> None:
        """Run until a condition holds."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s
            for descriptor in select.select(list(self._takers), [], [], 0.02)[0]:
                self._takers[descriptor]()


def note(outcome: str = "requested") -> Note:
    """A note."""
    return Note(time_us=1, actor="a", action="restart", subject="core/vm", outcome=outcome)


def call(body: object = None) -> Envelope:
    """A privileged call."""
    return Envelope(Kind.CALL, 1, "restart", 1000, "", body)


def allowed() -> Verdict:
    """A verdict that asks for a record."""
    return Verdict("operator/anna", "", True, "commands", "", 1.0)


def records(directory: Path) -> list[spool.SpoolRecord]:
    """All that was noted."""
    files = spool.list_files(directory).files
    return [record for file in files for record in spool.read(file).records]


def test_done_comes_after_the_record(tmp_path: Path) -> None:
    """When a call may go on its record can be read, and the loop has not waited."""
    loop, done = Loop(), []
    recorder = Recorder(tmp_path, "core", loop.attach)

    for _ in range(50):
        recorder.record(note(), lambda error: done.append((error, len(records(tmp_path)))))
    assert done == []
    loop.until(lambda: len(done) == 50)
    recorder.close()

    assert {error for error, _count in done} == {None}
    assert all(count >= place for place, (_error, count) in enumerate(done, 1))
    assert [record.number for record in records(tmp_path)] == list(range(1, 51))


def test_disk_that_hangs_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the deadline the call is refused; what the disk says later changes nothing."""
    loop, done, hung = Loop(), list[NovacronError | None](), threading.Event()
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: hung.wait(5) and real(descriptor))
    recorder = Recorder(tmp_path, "core", loop.attach)
    recorder.record(note(), done.append)

    due_s = recorder.due_s()
    assert due_s is not None
    recorder.turn(due_s - 0.001)
    before = list(done)
    recorder.turn(due_s)
    hung.set()
    recorder.close()
    recorder.turn(due_s)

    assert before == []
    assert [str(error) for error in done] == ["the disk took more than 2 s"]


def test_too_many_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue has an end, and whoever comes behind it is told at once."""
    loop, done, hung = Loop(), list[NovacronError | None](), threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda _descriptor: hung.wait(5))
    recorder = Recorder(tmp_path, "core", loop.attach)

    for _ in range(recorders.PENDING_MAX + 1):
        recorder.record(note(), done.append)

    assert len(done) == 1
    assert "too many" in str(done[0])
    hung.set()
    loop.until(lambda: len(done) == recorders.PENDING_MAX + 1)
    recorder.close()


def test_gate_records_request_and_outcome(tmp_path: Path) -> None:
    """A call is noted, carried out, and its outcome is noted."""
    loop, answers = Loop(), list[tuple[str, str]]()
    gate = Gate("core", str(tmp_path), loop.attach)

    gate.record(
        allowed(),
        call({"id": "vm"}),
        lambda outcome: outcome("supervisor.busy"),
        lambda code, sentence: answers.append((code, sentence)),
    )
    loop.until(lambda: len(records(tmp_path)) == 2)
    gate.close()

    request, outcome = records(tmp_path)
    assert (request.actor, request.action, request.subject) == (
        "operator/anna",
        "restart",
        "core/vm",
    )
    assert request.outcome == "requested"
    assert (outcome.outcome, outcome.fields["code"]) == ("failure", "supervisor.busy")
    assert answers == []


@pytest.mark.parametrize("spool_dir", ["", "/nonexistent/spool"])
def test_gate_refuses_what_it_cannot_record(spool_dir: str) -> None:
    """Without a spool, or one that takes nothing, the call is not carried out."""
    loop, answers, carried_out = Loop(), list[str](), list[object]()
    gate = Gate("core", spool_dir, loop.attach)

    gate.record(allowed(), call(), carried_out.append, lambda code, _sentence: answers.append(code))
    loop.until(lambda: answers)
    gate.close()

    assert answers == ["supervisor.audit_unavailable"]
    assert carried_out == []


def test_gate_says_so_much_and_counts_the_rest(tmp_path: Path) -> None:
    """Who keeps trying fills neither the log nor the spool, and is refused each time."""
    loop, answers = Loop(), list[str]()
    gate = Gate("core", str(tmp_path), loop.attach)
    verdict = Verdict("core/vm", REFUSED, False, "", "no rule", 1.0)

    for _ in range(500):
        gate.refuse(verdict, call(), lambda code, _sentence: answers.append(code))
    gate.close()

    assert len(answers) == gate.denied == 500
    assert 20 <= len(records(tmp_path)) <= 23
    assert {record.outcome for record in records(tmp_path)} == {"denied"}
