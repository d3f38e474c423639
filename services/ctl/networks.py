"""Networks as an operator sees them: the document's file, and lines for plan, result and state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.ctl.amounts import took
from services.ctl.errors import UsageError
from services.ctl.files import read_text
from services.ctl.styled import Column, Line, Span, Tone, line, printable, table
from services.network.networks.errors import NetworksDocumentError
from services.network.networks.model import NetworksDocument
from services.network.networks.parse import parse_networks
from services.network.networks.steps import CREATING, Step, StepKind, describe_step

if TYPE_CHECKING:
    from services.network.networks.records import Applied, LinkView, NetworksView, PlanReply

# The node takes documents of this size, as it must be able to show them.
FILE_BYTES_MAX = 600 << 10
_GOOD = frozenset((*CREATING, StepKind.ATTACH, StepKind.ADD_ADDRESS, StepKind.ADD_REMOTE))
_BAD = frozenset(
    (StepKind.DELETE, StepKind.DETACH, StepKind.REMOVE_ADDRESS, StepKind.REMOVE_REMOTE)
)
_LINKS = (
    Column("LINK"),
    Column("NETWORK"),
    Column("KIND"),
    Column("STATE"),
    Column("MTU", right=True),
    Column("PORT OF", rank=1),
    Column("ADDRESSES AND PORTS", rank=2),
)


def read_networks(place: str) -> NetworksDocument:
    """Read a YAML or JSON file, or standard input at ``-``.

    Raises:
        UsageError: it is not there, no YAML, or no valid document; the message says where.
        DeniedError: this user may not read it.
    """
    try:
        return parse_networks(read_text(place, FILE_BYTES_MAX), place)
    except NetworksDocumentError as exc:
        raise UsageError(exc.message) from exc


def render_plan(reply: PlanReply) -> list[Line]:
    """The steps in the order in which they would be taken, and what stands in the way."""
    lines = [line(Span("caution", Tone.CAUTION), f"  {printable(w)}") for w in reply.warnings]
    lines += [line(Span("conflict", Tone.BAD), f"  {printable(c)}") for c in reply.conflicts]
    lines += [_step(step) for step in reply.steps]
    count = len(reply.steps) + reply.omitted
    if reply.omitted:
        lines.append(line(f"and {reply.omitted} more"))
    if reply.conflicts:
        lines.append(line("nothing can be applied until the conflicts are gone"))
    elif not count:
        lines.append(line("nothing is to be done"))
    else:
        lines.append(line(f"{_count(count, 'step')} from revision {reply.revision}"))
    return lines


def render_applied(applied: Applied) -> list[Line]:
    """A change that holds."""
    lines = [line(Span("caution", Tone.CAUTION), f"  {printable(w)}") for w in applied.warnings]
    checked = (
        f"; answered before and after: {', '.join(applied.checked)}" if applied.checked else ""
    )
    lines.append(
        line(
            Span("in force", Tone.GOOD),
            printable(
                f": revision {applied.revision}, {_count(applied.steps, 'step')} in "
                f"{took(applied.change_s)}, kept after {took(applied.total_s)}{checked}"
            ),
        )
    )
    return lines


def render_view(view: NetworksView, *, width: int) -> list[Line]:
    """State, and the links that were made."""
    status = view.status
    is_good = status.state.value in ("in_force", "none")
    reason = f": {printable(status.reason)}" if status.reason else ""
    drift = "" if view.document is None else f", drift: {view.document.drift.value}"
    lines = [
        line(
            Span(status.state.value.replace("_", " "), Tone.GOOD if is_good else Tone.BAD),
            f"{reason}; revision {status.revision}, {_count(status.networks, 'network')}{drift}",
        )
    ]
    if status.repairs:
        lines.append(line(f"repaired {_count(status.repairs, 'time')} since the service started"))
    if status.restored:
        lines.append(line(Span("restored", Tone.CAUTION), f"  {printable(status.restored)}"))
    if view.links:
        lines += [(), *table(_LINKS, [_row(link) for link in view.links], width=width)]
    if view.omitted:
        lines.append(line(f"and {view.omitted} more"))
    return lines


def _row(link: LinkView) -> tuple[Span, ...]:
    more = f" and {link.ports_omitted} more" if link.ports_omitted else ""
    return (
        Span(printable(link.name), Tone.STRONG),
        Span(printable(link.network or "-")),
        Span(link.kind),
        Span("up" if link.is_up else "down", Tone.GOOD if link.is_up else Tone.BAD),
        Span(str(link.mtu)),
        Span(printable(link.master or "-")),
        Span(printable(" ".join((*link.addresses, *link.ports))) + more),
    )


def _step(step: Step) -> Line:
    sign, tone = ("~", Tone.CAUTION)
    if step.kind in _GOOD:
        sign, tone = ("+", Tone.GOOD)
    elif step.kind in _BAD:
        sign, tone = ("-", Tone.BAD)
    network = f"  ({step.network})" if step.network else ""
    return line(
        Span(sign, tone), printable(f" {describe_step(step)}"), Span(printable(network), Tone.FAINT)
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
