"""Operations, snapshots and images as an operator sees them; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.ctl.amounts import age, size
from services.ctl.styled import Column, Line, Span, Tone, line, printable, table
from services.vm.operations.model import OperationState

if TYPE_CHECKING:
    from services.vm.operations.model import OperationList, OperationRecord
    from services.vm.operations.storage_model import ImageRecord, SnapshotList

_TONES = {
    OperationState.WAITING: Tone.NOTE,
    OperationState.RUNNING: Tone.NOTE,
    OperationState.DONE: Tone.GOOD,
    OperationState.FAILED: Tone.BAD,
    OperationState.CANCELLED: Tone.CAUTION,
    OperationState.UNKNOWN: Tone.BAD,
}
_OPERATIONS = (
    Column("ID", right=True),
    Column("ORDER"),
    Column("OF"),
    Column("STATE"),
    Column("AGE", right=True, rank=2),
    Column("BY", rank=3),
    Column("WHAT", rank=1),
)
_SNAPSHOTS = (
    Column(""),
    Column("NAME"),
    Column("KIND"),
    Column("GUEST"),
    Column("AGE", right=True, rank=1),
    Column("AFTER"),
    Column("ABOUT", rank=2),
)


def render_operations(found: OperationList, *, now_s: float, width: int) -> list[Line]:
    """A table, the newest last."""
    if not found.operations:
        return [line("no orders since the VM service started")]
    rows = [_operation(record, now_s) for record in found.operations]
    return table(_OPERATIONS, rows, width=width)


def render_snapshots(found: SnapshotList, *, now_s: float, width: int) -> list[Line]:
    """A table; a star marks what the guest goes on from."""
    if not found.snapshots:
        return [line("no snapshots")]
    rows = [
        (
            Span("*" if item.is_current else ""),
            Span(printable(item.name)),
            Span(item.kind.value),
            Span(printable(item.state)),
            Span(age(now_s - item.created_s)),
            Span(printable(item.parent)),
            Span(printable(item.description)),
        )
        for item in found.snapshots
    ]
    return table(_SNAPSHOTS, rows, width=width)


def render_image(image: ImageRecord) -> list[Line]:
    """One image, a line each."""
    rows = [
        ("format", image.format),
        ("size", size(image.size_bytes)),
        ("on disk", size(image.used_bytes)),
    ]
    if image.backing:
        rows.append(("overlay of", image.backing))
    if image.is_in_use:
        rows.append(("in use", "by a guest or another program"))
    return [
        line(printable(image.path)),
        *(line(f"  {label:<11}{printable(text)}") for label, text in rows),
    ]


def _operation(record: OperationRecord, now_s: float) -> tuple[Span, ...]:
    said = record.error or record.note or record.step
    if record.progress is not None and not record.state.is_final:
        said += f" {100 * record.progress:.0f} %"
    return (
        Span(str(record.id)),
        Span(printable(record.method)),
        Span(printable(record.subject)),
        Span(record.state.value, _TONES[record.state]),
        Span(age(now_s - record.began_s)),
        Span(printable(record.caller)),
        Span(printable(said)),
    )
