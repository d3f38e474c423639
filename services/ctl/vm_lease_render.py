"""Leases as an operator sees them; pure."""

from __future__ import annotations

from services.ctl.amounts import age
from services.ctl.styled import Column, Line, Span, Tone, line, printable, table
from services.vm.leases.model import AssignReply, LeaseInfo, LeaseList, LeaseState

_TONES = {
    LeaseState.HELD: Tone.GOOD,
    LeaseState.EXPIRED: Tone.BAD,
    LeaseState.FREE: Tone.FAINT,
}
_LEASES = (
    Column("NAME"),
    Column("NODE"),
    Column("LEASE"),
    Column("EPOCH", right=True),
    Column("AGE", right=True, rank=1),
    Column("HEARD OF", right=True, rank=2),
    Column("BY", rank=3),
    Column("HERE", rank=4),
)


def render_leases(found: LeaseList, *, with_free: bool, width: int) -> list[Line]:
    """A table, and what is wrong below it."""
    lines: list[Line] = []
    if found.is_stale:
        text = "  the database is away; this node's own, as last known"
        lines.append(line(Span("stale", Tone.CAUTION), text))
    shown = [item for item in found.leases if with_free or item.state is not LeaseState.FREE]
    if shown:
        lines += table(_LEASES, [_row(item, found) for item in shown], width=width)
    else:
        lines.append(line("no machine is leased"))
    for item in found.leases:
        if item.fenced:
            text = f"  {printable(item.name)}: {printable(item.fenced)}"
            lines.append(line(Span("fenced", Tone.BAD), text))
    for reason in found.unleased.values():
        lines.append(line(Span("no lease", Tone.CAUTION), f"  {printable(reason)}"))
    if found.omitted:
        lines.append(line("and more that did not fit"))
    return lines


def render_assigned(reply: AssignReply) -> list[Line]:
    """What was done, and what is to be done next."""
    name, node = printable(reply.name), printable(reply.node)
    if not reply.changed:
        return [line(f"{name} belongs to {node} already")]
    return [
        line(f"{name} belongs to {node} by now, before to {printable(reply.was)}"),
        line(f"on {node}: novacronctl vm apply --name {name}"),
    ]


def _row(item: LeaseInfo, found: LeaseList) -> tuple[Span, ...]:
    here = "runs" if item.is_running else "-"
    return (
        Span(printable(item.name), Tone.STRONG),
        Span(printable(item.node_id)),
        Span(item.state.value, _TONES[item.state]),
        Span(str(item.epoch)),
        Span("-" if found.is_stale else age(item.age_s)),
        Span("-" if found.is_stale else age(item.renewed_ago_s)),
        Span(printable(item.acquired_by)),
        Span(here),
    )
