"""VM documents as an operator sees them: files, plans, what was done, and single machines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from services.ctl.amounts import took
from services.ctl.errors import UsageError, denied
from services.ctl.styled import Column, Line, Span, Tone, line, printable, table
from services.vm.documents.errors import DocumentError
from services.vm.documents.model import VmDocument
from services.vm.documents.parse import parse_documents, render_document
from services.vm.documents.records import (
    ApplyReply,
    DocumentInfo,
    DocumentList,
    Outcome,
    PlanReply,
    StepResult,
    VmView,
)
from services.vm.documents.steps import Step, StepKind
from services.vm.model import DomainList, DomainRecord, DomainState

# The node takes messages up to a megabyte.
BYTES_MAX = 900 << 10
_TONES = {
    StepKind.STOP: Tone.BAD,
    StepKind.UNDEFINE: Tone.BAD,
    StepKind.RESTART: Tone.BAD,
    StepKind.REDEFINE: Tone.CAUTION,
    StepKind.NEEDS_RESTART: Tone.CAUTION,
    StepKind.REFUSED: Tone.BAD,
    StepKind.ORPHAN: Tone.CAUTION,
    StepKind.ELSEWHERE: Tone.FAINT,
}
_OUTCOMES = {
    Outcome.DONE: Tone.GOOD,
    Outcome.FAILED: Tone.BAD,
    Outcome.SKIPPED: Tone.FAINT,
    Outcome.UNKNOWN: Tone.CAUTION,
}
_STATES = {DomainState.RUNNING: Tone.GOOD, DomainState.CRASHED: Tone.BAD}
_MACHINES = (
    Column("NAME"),
    Column("STATE"),
    Column("CPUS", right=True),
    Column("MEMORY", right=True),
    Column("DOCUMENT"),
    Column("POWER"),
    Column("AUTOSTART"),
)


def read_files(places: Iterable[str]) -> tuple[VmDocument, ...]:
    """The documents of YAML or JSON files, or of standard input at ``-``.

    Raises:
        UsageError: one is not there or not valid; the message says where and what is expected.
        DeniedError: this user may not read it.
    """
    found: dict[str, tuple[str, VmDocument]] = {}
    total = 0
    for place in places:
        text = _read(place)
        total += len(text)
        if total > BYTES_MAX:
            raise UsageError(f"the files hold more than {BYTES_MAX >> 10} KiB: give fewer at once")
        try:
            documents = parse_documents(text, place)
        except DocumentError as exc:
            raise UsageError(exc.message) from exc
        for document in documents:
            if document.name in found:
                raise UsageError(f"{document.name} is in {found[document.name][0]} and {place}")
            found[document.name] = (place, document)
    return tuple(document for _, document in found.values())


def render_plan(reply: PlanReply) -> list[Line]:
    """The steps in the order in which they would be taken, then what is only told."""
    lines = _stale(reply.is_stale)
    for step in reply.plan.steps:
        lines += _step_lines(step)
    if reply.omitted:
        lines.append(line(f"and {reply.omitted} more steps"))
    count = len(reply.plan.effects)
    notes = len(reply.plan.steps) - count
    if not reply.plan.steps:
        return [*lines, line("nothing is to be done")]
    told = f", {notes} told" if notes else ""
    return [*lines, line(f"{count} step{'s' * (count != 1)} to take{told}")]


def render_applied(reply: ApplyReply) -> list[Line]:
    """Each step with what came of it."""
    lines = _stale(reply.is_stale)
    for result in reply.results:
        lines += _result_lines(result)
    for note in reply.notes:
        lines += _step_lines(note)
    if not reply.results and not reply.notes:
        lines.append(line("nothing was to be done"))
    return lines


def render_list(domains: DomainList, documents: DocumentList, *, width: int) -> list[Line]:
    """All machines that have a domain, a document, or both."""
    kept = {item.name: item for item in documents.documents}
    known = {domain.name: domain for domain in domains.domains}
    rows = []
    for name in sorted({*kept, *known}):
        domain, document = known.get(name), kept.get(name)
        state = Span("undefined", Tone.FAINT)
        if domain is not None:
            state = Span(domain.state.value, _STATES.get(domain.state, Tone.PLAIN))
        is_unreadable = name in documents.unreadable
        version = "unreadable" if is_unreadable else "-"
        rows.append(
            (
                Span(printable(name), Tone.STRONG),
                state,
                Span(str(domain.vcpus) if domain else "-"),
                Span(f"{domain.memory_bytes >> 20} MiB" if domain else "-"),
                Span(f"version {document.version}" if document else version),
                Span(document.power if document else "-"),
                Span(_autostart(domain, document)),
            )
        )
    lines = _stale(documents.is_stale)
    if domains.is_stale:
        lines.append(line(Span("stale", Tone.CAUTION), "  libvirt does not answer; last known"))
    if not rows:
        return [*lines, line("there are no machines")]
    lines += table(_MACHINES, rows, width=width)
    if domains.omitted:
        lines.append(line(f"and {domains.omitted} more"))
    return lines


def _autostart(domain: DomainRecord | None, document: DocumentInfo | None) -> str:
    """Who starts it with the host: the platform as its document says, or libvirt."""
    if document is not None and document.autostart:
        return "yes"
    if domain is None:
        return "no" if document is not None else "-"
    return "by libvirt" if domain.autostart else "no"


def render_view(view: VmView) -> list[Line]:
    """One machine: what is, what should be, and what an apply would do."""
    lines = _stale(view.is_stale)
    domain, stored = view.domain, view.stored
    if domain is None:
        lines.append(line(Span(printable(view.name), Tone.STRONG), "  not defined in libvirt"))
    else:
        owner = "ours" if view.is_ours else "somebody else's"
        lines.append(
            line(
                Span(printable(view.name), Tone.STRONG),
                "  ",
                Span(domain.state.value, _STATES.get(domain.state, Tone.PLAIN)),
                printable(f" ({domain.reason}), {owner}, {domain.uuid}"),
            )
        )
    if stored is None:
        lines.append(line("it has no document"))
    else:
        text = f"document version {stored.version}, epoch {stored.epoch}, by {stored.updated_by}"
        lines.append(line(printable(text)))
    shown = view.found if stored is None else stored.document
    if shown is not None:
        lines += [line("  ", printable(text)) for text in render_document(shown).splitlines()]
    if view.fault:
        lines.append(line(Span("fault", Tone.BAD), f"  {printable(view.fault)}"))
    if view.left_out:
        lines.append(line("a document can't say:"))
        lines += [line("  ", printable(text)) for text in view.left_out]
    for step in view.steps:
        lines += _step_lines(step)
    return lines


def read_versions(texts: Iterable[str]) -> Mapping[str, int]:
    """``NAME=VERSION`` of the command line.

    Raises:
        UsageError: it is none.
    """
    found = {}
    for text in texts:
        name, sign, number = text.rpartition("=")
        if not sign or not number.isdecimal():
            raise UsageError(f"--expect is {text!r:.80}; write NAME=VERSION, 0 for a new one")
        found[name] = int(number)
    return found


def _step_lines(step: Step) -> list[Line]:
    tone = _TONES.get(step.kind, Tone.GOOD)
    head = line(Span(f"{step.kind.value:14}", tone), printable(f"{step.name}: {step.reason}"))
    return [head, *(line("  ", printable(detail)) for detail in step.details)]


def _result_lines(result: StepResult) -> list[Line]:
    step = result.step
    said = f": {result.message}" if result.message else ""
    text = printable(f"{step.kind.value} {step.name}{said}")
    return [
        line(
            Span(f"{result.outcome.value:8}", _OUTCOMES[result.outcome]),
            text,
            Span(f"  {took(result.took_s)}", Tone.FAINT),
        )
    ]


def _stale(is_stale: bool) -> list[Line]:  # noqa: FBT001 - a field as it came
    if not is_stale:
        return []
    return [line(Span("stale", Tone.CAUTION), "  the database is away; documents as last known")]


def _read(place: str) -> str:
    try:
        if place == "-":
            data = sys.stdin.buffer.read(BYTES_MAX + 1)
        else:
            with Path(place).open("rb") as stream:
                data = stream.read(BYTES_MAX + 1)
    except PermissionError as exc:
        raise denied(Path(place)) from exc
    except OSError as exc:
        raise UsageError(f"{place}: {exc.strerror}") from exc
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise UsageError(f"{place}: not UTF-8 ({exc.reason} at byte {exc.start})") from exc
