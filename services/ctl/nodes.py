"""The nodes that share a database, as one of them sees them; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from services.ctl.amounts import age
from services.ctl.styled import Column, Line, Span, Tone, line, printable, table, wrap
from services.data.health_records import ComponentEntry, NodeHealth, NodesPage, Standing

DATABASE = "data/database"
_TONES: Mapping[Standing, Tone] = {
    Standing.READY: Tone.GOOD,
    Standing.UNWELL: Tone.CAUTION,
    Standing.STARTING: Tone.NOTE,
    Standing.STOPPING: Tone.NOTE,
    Standing.STOPPED: Tone.FAINT,
    Standing.FAILED: Tone.BAD,
    Standing.UNKNOWN: Tone.BAD,
}
_COMPONENT_TONES: Mapping[str, Tone] = {
    "degraded": Tone.CAUTION,
    "unhealthy": Tone.BAD,
    "starting": Tone.NOTE,
    "stopped": Tone.FAINT,
}
_COLUMNS = (
    Column("NODE"),
    Column("STATE"),
    Column("FOR", right=True),
    Column("UNWELL", right=True),
    Column("VERSION", rank=2),
    Column("ENVIRONMENT", rank=3),
    Column("ROLES", rank=4),
    Column("HEARD", right=True, rank=1),
)
_INDENT = "    "


def render_nodes(page: NodesPage, *, width: int) -> list[Line]:
    """A table of nodes; what is not well follows the node that it belongs to."""
    lines = []
    if not page.is_current:
        text = f"{page.own_id} gets no news from the database: this is what it knew last"
        lines += [line(Span(text, Tone.BAD)), ()]
    if not page.nodes:
        return [*lines, line("no nodes")]
    head, *rows = table(_COLUMNS, [_row(item, page.own_id) for item in page.nodes], width=width)
    lines.append(head)
    for item, row in zip(page.nodes, rows, strict=True):
        lines.append(row)
        lines += _remarks(item, width)
    if page.left_out:
        lines.append(line(Span(f"and {page.left_out} more", Tone.FAINT)))
    return lines


def essence(page: NodesPage) -> NodesPage:
    """The page without what changes all by itself: ages, and the marks of its version."""
    nodes = tuple(
        replace(
            item,
            standing_s=0.0,
            node=replace(item.node, in_state_s=0.0, silent_s=0.0, lease_left_s=0.0),
            unwell=tuple(replace(c, in_state_s=0.0) for c in item.unwell),
        )
        for item in page.nodes
    )
    return replace(page, mark="", nodes=nodes)


def _row(item: NodeHealth, own_id: str) -> tuple[Span, ...]:
    node = item.node
    is_own = node.node_id == own_id
    return (
        Span(printable(node.node_id) + (" *" if is_own else ""), Tone.STRONG),
        Span(item.standing.value, _TONES[item.standing]),
        Span(age(item.standing_s)),
        Span(str(len(item.unwell)) if item.unwell else "-"),
        Span(printable(node.version)),
        Span(printable(node.environment)),
        Span(printable(",".join(node.roles))),
        Span(f"{age(node.silent_s)} ago"),
    )


def _remarks(item: NodeHealth, width: int) -> list[Line]:
    if item.standing is Standing.UNKNOWN:
        text = (
            f"was {printable(item.node.state)}; has not renewed its lease, last heard of "
            f"{age(item.node.silent_s)} ago"
        )
        return [line(_INDENT, Span(text, Tone.FAINT))]
    if item.standing in (Standing.STOPPED, Standing.FAILED):
        return []  # all its components are down as well
    return [text for component in item.unwell for text in _component(component, width)]


def _component(component: ComponentEntry, width: int) -> list[Line]:
    state = Span(printable(component.state), _COMPONENT_TONES.get(component.state, Tone.PLAIN))
    since = Span(f" for {age(component.in_state_s)}", Tone.FAINT)
    lines = [line(_INDENT, printable(component.component), " ", state, since)]
    if component.reason:
        lines += [
            line(_INDENT * 2, Span(part, Tone.FAINT))
            for part in wrap(component.reason, width - 2 * len(_INDENT))
        ]
    return lines
