"""How far a migration is, as an operator sees it; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.ctl.amounts import size

if TYPE_CHECKING:
    from protocol.records import Plain
    from services.vm.operations.model import OperationRecord

METHOD = "vm.migrate"


def figures_text(record: OperationRecord) -> str:
    """What is sent and left, and how fast, as a piece of a line; "" while nothing is known."""
    told = record.result
    if record.method != METHOD or not told.get("total_bytes"):
        return ""
    parts = [f"{size(_number(told, 'remaining_bytes'))} left"]
    if rate := _number(told, "bytes_s"):
        parts.append(f"{size(rate)}/s")
    if dirty := _number(told, "dirty_bytes_s"):
        parts.append(f"the guest writes {size(dirty)}/s")
    if iteration := _number(told, "iteration"):
        parts.append(f"pass {iteration}")
    if downtime_ms := _number(told, "downtime_ms"):
        parts.append(f"would stand {downtime_ms} ms")
    if throttle := _number(told, "throttle_percent"):
        parts.append(f"slowed by {throttle} %")
    return ", ".join(parts)


def result_text(record: OperationRecord) -> str:
    """What a finished one took, in a sentence; "" where that is not known."""
    told = record.result
    if record.method != METHOD or "total_s" not in told:
        return ""
    return (
        f"in {float(told['total_s']):.1f} s, of which it stood still for "
        f"{_number(told, 'downtime_ms')} ms; {size(_number(told, 'sent_bytes'))} were sent"
    )


def _number(told: dict[str, Plain], name: str) -> int:
    return int(told.get(name, 0) or 0)
