"""Leases as an operator sees them."""

from __future__ import annotations

from services.ctl.amounts import age
from services.ctl.styled import Column, Line, Span, line, printable, table
from services.network.serving.messages import LeasesView

_COLUMNS = (
    Column("NETWORK", rank=2),
    Column("ADDRESS"),
    Column("MAC", rank=1),
    Column("NAME"),
    Column("EXPIRES IN", right=True, rank=3),
)


def render_leases(found: LeasesView, *, now_s: float, width: int) -> list[Line]:
    """A line per lease, by network and address.

    Args:
        found: the node's answer.
        now_s: Unix time.
        width: cells of the screen.
    """
    if not found.leases:
        return [line("no address is given out")]
    rows = [
        (
            Span(printable(lease.network)),
            Span(lease.address),
            Span(lease.mac or "-"),
            Span(printable(lease.hostname) or "-"),
            Span("never" if lease.expires_s is None else age(lease.expires_s - now_s)),
        )
        for lease in found.leases
    ]
    lines = table(_COLUMNS, rows, width=width)
    if found.omitted:
        lines.append(line(f"and {found.omitted} more; name a network"))
    return lines
