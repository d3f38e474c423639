"""What an operator sees of a boot: journal records in, lines out; pure.

Two views of the same records. ``take`` returns lines that stay: steps, which say as text what the
screen draws, and notes, which everybody should see. ``screen`` returns the present picture of the
boot, to be drawn over the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from protocol.messages.journal import JournalRecord
from protocol.records import Plain
from services.ctl.amounts import took
from services.ctl.styled import Line, Span, Tone, line, pad, printable
from supervisor.boot import phases

_PHASE_OF_EVENT: Mapping[str, int] = {name: number for number, name in enumerate(phases.EVENTS)}
_MARKS: Mapping[str, tuple[str, Tone]] = {
    "healthy": ("✓", Tone.GOOD),
    "degraded": ("!", Tone.CAUTION),
    "unhealthy": ("✗", Tone.BAD),
    "starting": ("▸", Tone.NOTE),
    "stopped": ("-", Tone.FAINT),
}
_TROUBLED = ("degraded", "unhealthy")
_NAME_CELLS = 20


@dataclass(frozen=True, slots=True)
class Told:
    """Lines that a record leads to.

    Attributes:
        steps: what a live screen shows anyway.
        notes: what it does not.
    """

    steps: tuple[Line, ...] = ()
    notes: tuple[Line, ...] = ()


@dataclass(slots=True)
class _Component:
    """One process as the records told of it; ``ready_s`` is None until it could work."""

    phase: int
    state: str
    reason: str
    since_s: float
    ready_s: float | None = None


@dataclass(slots=True)
class Progress:
    """The boot so far.

    Attributes:
        is_over: the boot has ended, well or not; records still follow.
    """

    is_over: bool = False
    _is_stopping: bool = False
    _durations: dict[int, float] = field(default_factory=dict)
    _components: dict[str, _Component] = field(default_factory=dict)
    _started_s: float | None = None

    def take(self, record: JournalRecord) -> Told:
        """Take a record in."""
        if self._started_s is None:
            self._started_s = record.time_s
        if record.name in _PHASE_OF_EVENT:
            return self._take_phase(record, _PHASE_OF_EVENT[record.name])
        match record.name:
            case "component:state":
                return self._take_state(record)
            case "init:failed":
                self.is_over = True
                return Told(notes=self._failure(record.fields))
            case "node:failed":
                return Told(notes=_end("the node failed", record.fields))
            case "node:stopping":
                self._is_stopping = True
                return Told(notes=(line(f"stopping{_suffix(record.fields, 'cause')}"),))
            case "node:stopped":
                return Told(notes=(line("stopped"),))
            case "node:reloaded":
                return Told(notes=(line(f"reloaded{_suffix(record.fields, 'changed')}"),))
            case "node:reload-refused":
                text = f"reload refused{_suffix(record.fields, 'reason')}"
                return Told(notes=(line(Span(text, Tone.BAD)),))
        return Told()

    def screen(self, now_s: float) -> list[Line]:
        """The picture of the boot: phases, and the components that are not done with theirs.

        Args:
            now_s: Unix time.
        """
        lines: list[Line] = []
        started_s = now_s if self._started_s is None else self._started_s
        if not self.is_over:
            head = Span("NovaCron is starting", Tone.STRONG)
            lines.append(line(head, f"  {took(now_s - started_s)}"))
        current = len(self._durations)
        for number, name in enumerate(phases.NAMES):
            title = pad(f"{number} {name}", _NAME_CELLS + 2)
            if number in self._durations:
                lines.append(line(Span("  ✓ ", Tone.GOOD), title, took(self._durations[number])))
            elif number == current and not self.is_over:
                since_s = started_s + sum(self._durations.values())
                lines.append(line(Span("  ▸ ", Tone.NOTE), title, took(now_s - since_s)))
            elif number == current:
                lines.append(line(Span("  ✗ ", Tone.BAD), title))
            else:
                lines.append(line(Span(f"    {number} {name}", Tone.FAINT)))
            lines += self._component_lines(number, now_s)
        return lines

    def _take_phase(self, record: JournalRecord, number: int) -> Told:
        duration_s = _number(record.fields, "duration_s")
        self._durations[number] = duration_s
        # The first phases end before there is anybody to tell; the sum puts the start right.
        self._started_s = record.time_s - sum(self._durations.values())
        steps = [line(f"phase {number} {phases.NAMES[number]}: ready in {took(duration_s)}")]
        steps += self._troubles(number)
        if number < phases.HEALTH:
            return Told(tuple(steps))
        self.is_over = True
        return Told(tuple(steps), self._summary(record.fields))

    def _take_state(self, record: JournalRecord) -> Told:
        state, reason = str(record.fields.get("state", "")), str(record.fields.get("reason", ""))
        known = self._components.get(record.component)
        before = (known.state, known.reason) if known is not None else None
        if state == "removed":
            self._components.pop(record.component, None)
            return Told(notes=(line(f"{printable(record.component)} is removed"),))
        if known is None or (state == "starting" and known.state != "starting"):
            phase = int(_number(record.fields, "phase"))
            known = self._components[record.component] = _Component(
                phase, state, reason, record.time_s
            )
        known.state, known.reason = state, reason
        if known.ready_s is None and state in ("healthy", *_TROUBLED):
            known.ready_s = record.time_s - known.since_s
        is_news = before is not None and before != (state, reason)
        if is_news and self.is_over and not self._is_stopping:
            return Told(notes=(_state_line(record.component, known),))
        return Told()

    def _summary(self, fields: Mapping[str, Plain]) -> tuple[Line, ...]:
        """How long it took, where the node can be reached, and what to do next."""
        troubled = any(component.state in _TROUBLED for component in self._components.values())
        verdict = Span("degraded", Tone.CAUTION) if troubled else Span("ready", Tone.GOOD)
        lines = [line(verdict, f" in {took(_number(fields, 'boot_s'))}")]
        addresses = fields.get("addresses")
        if isinstance(addresses, Mapping):
            lines += [
                line(Span(f"  {pad(printable(name), 9)} ", Tone.FAINT), printable(str(address)))
                for name, address in addresses.items()
            ]
        lines.append(line(Span("Ctrl-C stops it; bin/novacronctl status shows it", Tone.FAINT)))
        return tuple(lines)

    def _failure(self, fields: Mapping[str, Plain]) -> tuple[Line, ...]:
        number = min(max(int(_number(fields, "phase")), 0), phases.HEALTH)
        end = _end(f"boot failed in phase {number} {phases.NAMES[number]}", fields)
        return (*self._troubles(number), *end)

    def _troubles(self, number: int) -> list[Line]:
        """The components of a phase that can't do all they should."""
        return [
            line("  ", *_state_line(path, component))
            for path, component in self._of_phase(number)
            if component.state in _TROUBLED
        ]

    def _component_lines(self, number: int, now_s: float) -> list[Line]:
        """Those of a phase under way, and of a phase that is over those in trouble."""
        lines = []
        for path, component in self._of_phase(number):
            if number in self._durations and component.state not in (*_TROUBLED, "starting"):
                continue
            mark, tone = _MARKS.get(component.state, ("?", Tone.PLAIN))
            elapsed_s = (
                now_s - component.since_s if component.ready_s is None else component.ready_s
            )
            because = component.reason if component.state not in ("healthy", "starting") else ""
            lines.append(
                line(
                    Span(f"      {mark} ", tone),
                    pad(printable(path), _NAME_CELLS - 2),
                    took(elapsed_s) if component.state != "stopped" else "",
                    Span(f"  {printable(because)}" if because else "", tone),
                )
            )
        return lines

    def _of_phase(self, number: int) -> Iterable[tuple[str, _Component]]:
        return ((path, c) for path, c in self._components.items() if c.phase == number)


def _state_line(path: str, component: _Component) -> Line:
    _mark, tone = _MARKS.get(component.state, ("?", Tone.PLAIN))
    is_told = component.reason and component.state != "healthy"
    because = f": {printable(component.reason)}" if is_told else ""
    return line(f"{printable(path)} is ", Span(printable(component.state), tone), because)


def _end(what: str, fields: Mapping[str, Plain]) -> tuple[Line, ...]:
    """Why the node ends, which component it comes from, and the exit code."""
    origin = f"{fields['origin']}: " if fields.get("origin") else ""
    reason = printable(f"{origin}{fields.get('reason') or 'no reason is known'}")
    lines = [line(Span(what, Tone.BAD), f": {reason}")]
    if "exit_code" in fields:
        code = f" ({printable(str(fields['code']))})" if fields.get("code") else ""
        lines.append(line(f"exit code {fields['exit_code']}{code}"))
    return tuple(lines)


def _suffix(fields: Mapping[str, Plain], name: str) -> str:
    value = fields.get(name)
    if not value:
        return ""
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return f": {printable(text)}"


def _number(fields: Mapping[str, Plain], name: str) -> float:
    value = fields.get(name, 0.0)
    return float(value) if isinstance(value, (int, float)) else 0.0
