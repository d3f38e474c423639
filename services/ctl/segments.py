"""Segments as an operator sees them: the document's file, and lines for plan, state and trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.ctl.amounts import took
from services.ctl.errors import UsageError
from services.ctl.files import read_text
from services.ctl.styled import Column, Line, Span, Tone, line, printable, table
from services.documents import DocumentFormat
from services.network.segments.model import SegmentDocument
from services.network.segments.plan import StepKind, describe_rule

if TYPE_CHECKING:
    from services.network.segments.messages import Applied, SegmentsView
    from services.network.segments.plan import SegmentPlan
    from services.network.segments.trace import TraceAnswer

# The node takes messages up to a megabyte.
FILE_BYTES_MAX = 1 << 20
_FORMAT = DocumentFormat(SegmentDocument, error=UsageError, nodes_max=500_000, depth_max=8)
_SIGNS = {
    StepKind.ADD: Span("+", Tone.GOOD),
    StepKind.CHANGE: Span("~", Tone.CAUTION),
    StepKind.REMOVE: Span("-", Tone.BAD),
}
_DROPS = (
    Column("INTERFACE"),
    Column("FORGED", right=True),
    Column("FROM IT", right=True),
    Column("TO IT", right=True),
)


def read_document(place: str) -> SegmentDocument:
    """Read a YAML or JSON file, or standard input at ``-``.

    Raises:
        UsageError: it is not there, no YAML, or no valid document; the message says where.
        DeniedError: this user may not read it.
    """
    return _FORMAT.read_one(read_text(place, FILE_BYTES_MAX), place)


def render_plan(plan: SegmentPlan) -> list[Line]:
    """What would change, part by part."""
    lines = [line(Span("caution", Tone.CAUTION), f"  {printable(w)}") for w in plan.warnings]
    if plan.drift:
        lines.append(line(Span("now", Tone.BAD), f"      {printable(plan.drift)}"))
    for step in plan.steps:
        lines.append(line(_SIGNS[step.kind], f" {printable(step.subject)}"))
        for detail in step.details:
            tone = Tone.GOOD if detail.startswith("+") else Tone.BAD
            lines.append(line("    ", Span(printable(detail), tone)))
    if not plan.steps:
        lines.append(line("nothing differs from what was applied last"))
    lines.append(
        line(
            f"{_count(len(plan.steps), 'difference')} to revision {plan.revision}: "
            f"{_count(plan.rules, 'rule')}, {_count(plan.elements, 'element')}, "
            f"{_count(plan.commands, 'command')} in one transaction"
        )
    )
    return lines


def render_applied(applied: Applied) -> Line:
    """A change that holds, on one line."""
    return line(
        Span("in force", Tone.GOOD),
        f": revision {applied.revision}, {_count(applied.commands, 'command')} in "
        f"{took(applied.commit_s)}, checked and kept after {took(applied.total_s)}",
    )


def render_view(view: SegmentsView, *, width: int) -> list[Line]:
    """State, interfaces with their rules, and what was dropped."""
    status = view.status
    good = status.state.value in ("in_force", "none")
    state = Span(status.state.value.replace("_", " "), Tone.GOOD if good else Tone.BAD)
    reason = f": {printable(status.reason)}" if status.reason else ""
    lines = [
        line(
            state,
            f"{reason}; revision {status.revision}, {_count(status.interfaces, 'interface')}, "
            f"{_count(status.rules, 'rule')}",
        )
    ]
    if status.restored:
        lines.append(line(Span("restored", Tone.CAUTION), f"  {printable(status.restored)}"))
    document = view.document
    if document is not None:
        if document.guarded:
            lines.append(line("guarded   ", printable(" ".join(document.guarded))))
        if document.trusted:
            lines.append(line("trusted   ", printable(" ".join(document.trusted))))
        for item in document.interfaces:
            labels = f"  [{' '.join(item.labels)}]" if item.labels else ""
            words = " ".join((item.mac, *item.addresses, *(["dhcp"] if item.dhcp else [])))
            lines.append(
                line(Span(printable(item.name), Tone.STRONG), printable(f"  {words}{labels}"))
            )
            lines += [line("    ", printable(describe_rule(rule))) for rule in item.rules]
    if view.drops:
        rows = [
            (
                Span(printable(drop.interface)),
                *(Span(str(count)) for count in (drop.spoofed, drop.sent, drop.received)),
            )
            for drop in view.drops
        ]
        lines += [(), line("packets dropped"), *table(_DROPS, rows, width=width)]
    return lines


def render_trace(answer: TraceAnswer) -> list[Line]:
    """Every rule that the packet met; the last one decides."""
    lines = []
    places = [f"{step.chain} {step.rule}" for step in answer.steps]
    wide = max((len(place) for place in places), default=0)
    for place, step in zip(places, answer.steps, strict=True):
        because = f"  because of {step.because}" if step.because else ""
        comment = f"  {step.comment}" if step.comment else ""
        text = printable(f"{step.does}{comment}{because}")
        lines.append(line(Span(f"{place:{wide}}  ", Tone.FAINT), text))
    verdict = Span("accepted", Tone.GOOD) if answer.accepted else Span("dropped", Tone.BAD)
    last = answer.steps[-1] if answer.steps else None
    if last is None:
        return [line(verdict, ": no listed interface takes part")]
    why = "; ".join(text for text in (last.comment, last.because) if text)
    return [*lines, line(verdict, printable(f": {why}") if why else "")]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
