"""A supervisor's decision as lines for a person; pure."""

from __future__ import annotations

from collections.abc import Mapping

from protocol.messages.trace import Decision, TraceItem
from protocol.records import Plain
from services.ctl.amounts import took
from services.ctl.logline import clock
from services.ctl.styled import Line, Span, Tone, cells, line, pad, printable, wrap

_SUPERVISOR_CELLS = 9
# Events and actions in a person's words; what is not here is shown by its own name.
_EVENTS: Mapping[str, str] = {
    "begin": "begin",
    "spawned": "{id} runs as {pid}",
    "became_ready": "{id} is ready",
    "exited": "{id} exited: {reason}",
    "stopped_beating": "{id} stopped beating",
    "stop_all": "stop everything: {reason}",
    "start_child": "operator: start {id}",
    "stop_child": "operator: stop {id}",
    "restart_child": "operator: restart {id}",
    "reconfigure": "a new specification with {children} children",
    "tick": "time passed",
}
_ACTIONS: Mapping[str, str] = {
    "spawn": "spawn {id}",
    "ask_stop": "ask {id} to stop",
    "abort": "have {id} dump its stacks",
    "kill": "kill {id}",
    "update": "hand {id} its new specification",
    "changed": "{id} is {state}",
    "all_up": "all are up",
    "finish": "finish: {reason}",
    "more": "{count} more",
}
# What ends or fails is to catch the eye.
_TONES: Mapping[str, Tone] = {
    "exited": Tone.CAUTION,
    "stopped_beating": Tone.BAD,
    "became_ready": Tone.GOOD,
    "kill": Tone.BAD,
    "abort": Tone.BAD,
    "finish": Tone.BAD,
    "all_up": Tone.GOOD,
    "tick": Tone.FAINT,
}
_UNEXCITING = frozenset(("normal", "shutdown"))


def render_decision(decision: Decision, *, width: int) -> list[Line]:
    """What happened and what was decided: on one line, or the decisions on lines below.

    Args:
        decision: one of a supervisor.
        width: cells of the screen.
    """
    stamp = f"{clock(decision.time_s)}  "
    who = pad(printable(decision.supervisor), _SUPERVISOR_CELLS)
    event = _event_text(decision.event)
    budget = _budget(decision)
    head = [Span(stamp, Tone.FAINT), Span(who, Tone.NOTE), Span("  ")]
    indent = sum(cells(span.text) for span in head)
    # Each change is told with the state after all of them, so a second one says nothing new.
    decided = list(dict.fromkeys(map(_action_text, decision.actions)))
    text = f"{event}{budget}"
    if not decided:
        return [line(*head, Span(text, _tone(decision.event)), Span("  → nothing", Tone.FAINT))]
    arrow = "→ " + "; ".join(decided)
    tone = next((_TONES[i.name] for i in decision.actions if i.name in _TONES), Tone.PLAIN)
    if indent + cells(text) + 2 + cells(arrow) <= width:
        return [line(*head, Span(text, _tone(decision.event)), "  ", Span(arrow, tone))]
    lines = [line(*head, Span(text, _tone(decision.event)))]
    for index, part in enumerate(wrap(arrow, width - indent - 2)):
        lines.append(line(" " * (indent + 2 * bool(index)), Span(part, tone)))
    return lines


def _event_text(item: TraceItem) -> str:
    return _sentence(_EVENTS, item)


def _action_text(item: TraceItem) -> str:
    text = _sentence(_ACTIONS, item)
    if item.name == "spawn" and _number(item, "incarnation") > 1:
        text += f", process {item.fields['incarnation']}"
    retry_s = item.fields.get("retry_in_s")
    if isinstance(retry_s, (int, float)):
        text += f", next try in {took(retry_s)}"
    return text


def _budget(decision: Decision) -> str:
    """After an end, the restarts that it brings the supervisor to."""
    if decision.event.name != "exited" or not decision.used:
        return ""
    return f" [{decision.used} of {decision.intensity} restarts]"


def _sentence(known: Mapping[str, str], item: TraceItem) -> str:
    pattern = known.get(item.name)
    fields = {name: _text(value) for name, value in item.fields.items()}
    if pattern is not None:
        try:
            return printable(pattern.format_map(fields))
        except KeyError:
            pass  # a supervisor of another version; its own words will do
    return printable(" ".join((item.name, *(f"{n}={v}" for n, v in fields.items()))))


def _text(value: Plain) -> str:
    """A field in words; a reason as its kind and detail."""
    if not isinstance(value, Mapping):
        return str(value)
    detail = value.get("detail")
    return f"{value.get('kind', '')}: {detail}" if detail else str(value.get("kind", ""))


def _tone(item: TraceItem) -> Tone:
    reason = item.fields.get("reason")
    if isinstance(reason, Mapping) and reason.get("kind") in _UNEXCITING:
        return Tone.STRONG
    return _TONES.get(item.name, Tone.STRONG)


def _number(item: TraceItem, name: str) -> int:
    value = item.fields.get(name)
    return value if isinstance(value, int) else 0
