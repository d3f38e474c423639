"""How far a migration is, in words."""

from __future__ import annotations

from services.ctl.vm_migration import figures_text, result_text
from services.ctl.vm_orders import progress_text
from services.vm.operations.model import OperationRecord, OperationState

SENDING = OperationRecord(
    id=1,
    method="vm.migrate",
    subject="web1",
    state=OperationState.RUNNING,
    step="sending it to b",
    progress=0.5,
    result={
        "total_bytes": 200 << 20,
        "remaining_bytes": 100 << 20,
        "bytes_s": 20 << 20,
        "dirty_bytes_s": 3 << 20,
        "iteration": 2,
        "downtime_ms": 300,
        "throttle_percent": 20,
    },
)


def test_a_migration_tells_how_fast_and_how_much() -> None:
    """On one line, with what the guest writes against it."""
    assert progress_text(SENDING, now_s=9.0) == (
        "web1: sending it to b 50 %, 9 s, 100 MiB left, 20 MiB/s, the guest writes 3.0 MiB/s, "
        "pass 2, would stand 300 ms, slowed by 20 %"
    )


def test_a_moved_guest_tells_what_it_took() -> None:
    """Duration, downtime, bytes."""
    done = OperationRecord(
        id=1,
        method="vm.migrate",
        subject="web1",
        result={"total_s": 4.24, "downtime_ms": 216, "sent_bytes": 76 << 20},
    )

    assert result_text(done) == "in 4.2 s, of which it stood still for 216 ms; 76 MiB were sent"


def test_other_operations_tell_nothing_of_that() -> None:
    """And a migration of which nothing is known yet."""
    for record in (
        OperationRecord(id=1, method="vm.start", subject="a", result={"total_bytes": 1}),
        OperationRecord(id=1, method="vm.migrate", subject="a"),
    ):
        assert figures_text(record) == result_text(record) == ""
