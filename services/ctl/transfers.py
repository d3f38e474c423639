"""File transfers between nodes as an operator sees them; pure."""

from __future__ import annotations

from collections.abc import Sequence

from services.ctl.amounts import age, size, took
from services.ctl.errors import CtlError, UsageError
from services.ctl.styled import Column, Line, Span, Tone, line, printable, table
from services.dwcp.model import Direction, DwcpStatus, TransferState, TransferStatus

MANAGER = "core/dwcp/manager"
# Enough of an id to be told apart by; any unique beginning is understood.
_SHORT_ID = 8
_TONES = {
    TransferState.CONNECTING: Tone.NOTE,
    TransferState.MOVING: Tone.NOTE,
    TransferState.FINISHING: Tone.NOTE,
    TransferState.FINISHED: Tone.GOOD,
    TransferState.FAILED: Tone.BAD,
}
_COLUMNS = (
    Column("ID"),
    Column("", rank=3),
    Column("STATE"),
    Column("DONE", right=True),
    Column("SIZE", right=True, rank=2),
    Column("RATE", right=True),
    Column("LEFT", right=True, rank=1),
    Column("STREAMS", right=True, rank=4),
    Column("PEER", rank=5),
    Column("FILE"),
)


def parse_address(text: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[v6 address]:port``.

    Raises:
        UsageError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(f"{text!r} is ambiguous: write an IPv6 address as [address]:port")
    if not colon or not host or not port.isascii() or not port.isdigit() or len(port) > 5:
        raise UsageError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def find_transfer(transfers: Sequence[TransferStatus], start: str) -> TransferStatus:
    """The one transfer whose id begins with ``start``.

    Raises:
        CtlError: none or several do.
    """
    # A node that sends to itself lists a transfer twice, once for each end.
    found = {t.transfer: t for t in transfers if t.transfer.startswith(start.lower())}
    if len(found) == 1:
        return next(iter(found.values()))
    known = "no" if not found else f"{len(found)}"
    raise CtlError(f"{known} transfers have an id that begins with {start!r}")


def render_dwcp(status: DwcpStatus, *, width: int) -> list[Line]:
    """Where files are taken, who carries them, what was moved so far, and the transfers."""
    totals = status.totals
    carriers = ", ".join(
        item.id if item.is_available else f"{item.id} (not available)" for item in status.transports
    )
    failed = f", {totals.failed_transfers} failed" if totals.failed_transfers else ""
    moved = (
        f"{totals.sent_transfers} sent ({size(totals.sent_bytes)}),"
        f" {totals.received_transfers} received ({size(totals.received_bytes)}){failed}"
    )
    rows = (("address", status.address), ("carriers", carriers), ("so far", moved))
    head = [line(Span(f"{title:10}", Tone.FAINT), printable(text)) for title, text in rows]
    return [*head, (), *render_transfers(status.transfers, width=width)]


def render_transfers(transfers: Sequence[TransferStatus], *, width: int) -> list[Line]:
    """A table of transfers; what failed is followed by the reason."""
    if not transfers:
        return [line("no transfers")]
    head, *rows = table(_COLUMNS, [_row(transfer) for transfer in transfers], width=width)
    lines = [head]
    for transfer, row in zip(transfers, rows, strict=True):
        lines.append(row)
        if transfer.message:
            lines.append(line("    ", Span(printable(transfer.message), Tone.BAD)))
    return lines


def render_progress(transfer: TransferStatus) -> Line:
    """One transfer under way, on one line."""
    left = f", {age(transfer.eta_s)} left" if transfer.eta_s is not None else ""
    return line(
        Span(f"{transfer.state.value:10}", _TONES[transfer.state]),
        f"{_percent(transfer):>4}  {size(transfer.done_bytes)} of {size(transfer.size_bytes)}",
        f"  {size(round(transfer.rate_bytes_s))}/s, {_streams(transfer)}{left}",
    )


def render_end(transfer: TransferStatus) -> Line:
    """How a transfer ended, on one line."""
    file, peer = printable(transfer.file), printable(transfer.peer)
    if transfer.state is TransferState.FAILED:
        reason = printable(transfer.message) or "no reason is known"
        return line(Span("failed", Tone.BAD), f": {file} to {peer}: {reason} ({transfer.error})")
    elapsed_s = (transfer.ended_s or transfer.started_s) - transfer.started_s
    share = ""
    if transfer.data_bytes:
        share = f", {transfer.wire_bytes / transfer.data_bytes:.0%} of it on the wire"
    return line(
        Span("sent", Tone.GOOD),
        f": {file} to {peer}: {size(transfer.size_bytes)} in {took(elapsed_s)},"
        f" {size(round(transfer.rate_bytes_s))}/s{share}, {_streams(transfer)}",
    )


def _row(transfer: TransferStatus) -> tuple[Span, ...]:
    is_running = transfer.ended_s is None
    return (
        Span(transfer.transfer[:_SHORT_ID]),
        Span("to" if transfer.direction is Direction.SEND else "from", Tone.FAINT),
        Span(transfer.state.value, _TONES[transfer.state]),
        Span(_percent(transfer)),
        Span(size(transfer.size_bytes)),
        Span(f"{size(round(transfer.rate_bytes_s))}/s"),
        Span(age(transfer.eta_s) if is_running and transfer.eta_s is not None else "-"),
        Span(str(transfer.streams)),
        Span(printable(transfer.peer)),
        Span(printable(transfer.file.rpartition("/")[2])),
    )


def _streams(transfer: TransferStatus) -> str:
    return f"{transfer.streams} stream{'s' * (transfer.streams != 1)}"


def _percent(transfer: TransferStatus) -> str:
    if not transfer.size_bytes:
        return "100%" if transfer.state is TransferState.FINISHED else "0%"
    return f"{int(transfer.done_bytes * 100 / transfer.size_bytes)}%"
