"""Segments as an operator sees them: the document's file, and lines for plan, state and trace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from protocol.errors import RemoteProtocolError
from protocol.records import Plain, from_wire
from services.ctl.amounts import took
from services.ctl.errors import UsageError, denied
from services.ctl.styled import Column, Line, Span, Tone, line, printable, table
from services.network.segments.model import SegmentDocument
from services.network.segments.plan import StepKind, describe_rule

if TYPE_CHECKING:
    from services.network.segments.messages import Applied, SegmentsView
    from services.network.segments.plan import SegmentPlan
    from services.network.segments.trace import TraceAnswer

# The node takes messages up to a megabyte.
FILE_BYTES_MAX = 1 << 20
_DEPTH_MAX = 8
_SWITCHES = {"true": True, "false": False}
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
    text = _read(place)
    try:
        found = from_wire(SegmentDocument, _plain(_parse(text, place), 0))
    except RemoteProtocolError as exc:
        detail = str(exc).removeprefix("SegmentDocument").lstrip(".: ")
        raise UsageError(f"{place}: {detail}") from exc
    return found


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


def _read(place: str) -> str:
    try:
        if place == "-":
            data = sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
        else:
            with Path(place).open("rb") as stream:
                data = stream.read(FILE_BYTES_MAX + 1)
    except PermissionError as exc:
        raise denied(Path(place)) from exc
    except OSError as exc:
        raise UsageError(f"{place}: {exc.strerror}") from exc
    if len(data) > FILE_BYTES_MAX:
        raise UsageError(f"{place}: larger than {FILE_BYTES_MAX} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise UsageError(f"{place}: not UTF-8 ({exc.reason} at byte {exc.start})") from exc


def _parse(text: str, place: str) -> Plain:
    import yaml  # 20 ms that only these commands pay

    try:
        # Every scalar as it stands: to YAML 1.1, 52:54:00:00:00:01 is a number to the base 60.
        for event in yaml.parse(text, Loader=yaml.CBaseLoader):
            # Aliases make a short text large, or endless.
            if getattr(event, "anchor", None) is not None:
                mark = event.start_mark
                where = "" if mark is None else f"line {mark.line + 1} "
                raise UsageError(f"{place}: {where}has an anchor or alias; write the value")
        node = yaml.compose(text, Loader=yaml.CBaseLoader)
        if node is None:
            raise UsageError(f"{place}: it is empty")
        _refuse_doubles(node, place)
        return yaml.load(text, Loader=yaml.CBaseLoader)  # noqa: S506 - makes strings alone
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        problem = getattr(exc, "problem", None) or exc
        raise UsageError(f"{place}: no YAML{where}: {problem}") from exc
    except RecursionError as exc:
        raise UsageError(f"{place}: it nests too deep") from exc


def _refuse_doubles(node: Plain, place: str) -> None:
    """YAML lets the last of two equal keys win, which hides a rule."""
    pending = [node]
    while pending:
        found = pending.pop()
        if found.id == "mapping":
            seen = set()
            for key, value in found.value:
                if key.value in seen:
                    number = key.start_mark.line + 1
                    raise UsageError(f"{place}: line {number} repeats the key {key.value!r:.60}")
                seen.add(key.value)
                pending.append(value)
        elif found.id == "sequence":
            pending += found.value


def _plain(value: Plain, depth: int, key: str = "") -> Plain:
    """What the records expect: texts, but for switches."""
    if depth > _DEPTH_MAX:
        raise UsageError("the document nests too deep")
    if isinstance(value, dict):
        return {name: _plain(item, depth + 1, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    return _SWITCHES.get(value, value) if key == "dhcp" else value


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
