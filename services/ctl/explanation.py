"""Why a component is as it is, as lines for a person; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from protocol import names
from protocol.messages.explain import Budget, ChildExplanation, Hold, PastExit, Relation
from protocol.messages.health import HealthState
from services.ctl.advice import advise
from services.ctl.amounts import age, took
from services.ctl.explaining import Explained
from services.ctl.logline import clock
from services.ctl.render import STATE_TONES
from services.ctl.styled import Line, Span, Tone, line, pad, printable, wrap

# Ends that nobody has to explain.
_EXPECTED = frozenset(("normal", "shutdown", "declined"))
_TITLE_CELLS = 13
_FAILURES = {
    "critical": "critical: the node is not ready without it",
    "recoverable": "recoverable: the node is degraded without it",
    "degraded": "degraded class: it never takes its supervisor along",
}
_RESTARTS = {
    "permanent": "restarted after every end",
    "transient": "restarted unless it ends cleanly",
    "temporary": "never restarted",
}


def render_explanation(explained: Explained, *, now_s: float, width: int) -> list[Line]:
    """The whole screen: the state and its cause, what comes next, who waits, and what to do.

    Args:
        explained: what was asked for.
        now_s: Unix time.
        width: cells of the screen.
    """
    lines = _headline(explained, now_s, width)
    rows = _rows(explained, now_s)
    if rows:
        lines.append(())
    for title, text in rows:
        for index, part in enumerate(wrap(text, width - _TITLE_CELLS)):
            lines.append(line(Span(pad("" if index else title, _TITLE_CELLS), Tone.FAINT), part))
    if explained.child is not None and explained.child.exits:
        lines += [(), *_exit_lines(explained.child.exits, now_s, width)]
    hints = advise(explained)
    if hints:
        cells = max(len(command) for command, _what in hints) + 2
        lines += [(), line(Span("What you can do", Tone.STRONG))]
        lines += [
            line("  ", pad(command, cells), Span(what, Tone.FAINT)) for command, what in hints
        ]
    return lines


def _headline(explained: Explained, now_s: float, width: int) -> list[Line]:
    component, child = explained.component, explained.child
    state = component.state if child is None else child.state
    reason = component.reason if child is None else child.reason
    since = ""
    if child is not None and child.since_s is not None:
        since = f" since {clock(child.since_s)[:8]} ({age(now_s - child.since_s)})"
    elif component.uptime_s is not None and explained.own is not None:
        since = f", up for {age(component.uptime_s)}"
    tone = STATE_TONES[state]
    head = line(Span(component.path, Tone.STRONG), " is ", Span(state.value, tone), since)
    return [head, *(line("  ", Span(text, tone)) for text in wrap(reason, width - 2) if reason)]


# -- rows ---------------------------------------------------------------------------------------


def _rows(explained: Explained, now_s: float) -> list[tuple[str, str]]:
    """Titles and sentences, in the order in which somebody would ask."""
    rows: list[tuple[str, str]] = []
    child = explained.child
    if child is None:
        rows.append(("why", _why_unasked(explained)))
    else:
        rows += [("why", why(child, explained, now_s)), *_next_rows(child, now_s)]
        rows += [("waits for", _hold(hold, child)) for hold in child.holds]
        rows += [("restarts", _restarts(child))]
        rows += _relation_rows(explained, child)
        rows += [("process", _process(explained, child)), ("rules", _rules(explained, child))]
    if explained.own is not None:
        own = explained.own
        rows.append(
            (
                "supervises",
                f"{own.strategy}, {own.mode}; it {_used(own.budget)} and gives up past them",
            )
        )
        if own.waiting:
            rows.append(("not started", ", ".join(own.waiting)))
    return [(title, text) for title, text in rows if text]


def why(child: ChildExplanation, explained: Explained, now_s: float) -> str:
    """The supervisor's own reason, in a sentence."""
    match child.decision:
        case "up" if child.state is HealthState.HEALTHY:
            before = f"; before that it {_exited(child, now_s)}" if _recent(child, now_s) else ""
            return f"its process has said that it is ready{before}"
        case "up":
            return "its process runs and says so itself; nothing restarts it for that"
        case "starting":
            return f"process {child.incarnation} was started and has not said that it is ready"
        case "stopping":
            return f"it was asked to stop{_by_order(child, now_s)}"
        case "degraded":
            return f"given up {_times(child.attempts)}: {_exited(child, now_s)}"
        case "waiting" if child.exits:
            return f"it is to run again: {_exited(child, now_s)}"
        case "waiting":
            return "it is to run and has not been started yet"
        case _:
            return _why_stopped(child, explained, now_s)


def _why_stopped(child: ChildExplanation, explained: Explained, now_s: float) -> str:
    mode = "" if explained.supervisor is None else explained.supervisor.mode
    if child.wanted:
        return "it was given up, and its supervisor ends for it"
    if mode in ("stopping", "finished"):
        return "its supervisor is stopping"
    if child.order is not None and child.order.verb == "stop":
        return f"stopped{_by_order(child, now_s)}; it stays so until somebody starts it"
    last = child.exits[-1].kind if child.exits else ""
    if last == "declined":
        return "it had nothing to do and said so"
    if last == "normal":
        return f"it has finished, and is {child.restart}: a clean end is not followed by a restart"
    return "it is not wanted"


def _why_unasked(explained: Explained) -> str:
    if not explained.above:
        return explained.problem
    above = explained.above[0]
    said = f", which is {above.state.value}: {above.reason}" if above.reason else ""
    return f"it waits for its supervisor {above.path}{said} ({explained.problem})"


def _next_rows(child: ChildExplanation, now_s: float) -> list[tuple[str, str]]:
    rows = []
    if child.retry_in_s is not None:
        is_now = child.retry_in_s == 0
        text = "as soon as nothing holds it" if is_now else f"in {took(child.retry_in_s)}"
        rows.append(("next try", text))
    if child.deadline_in_s is not None:
        left = took(child.deadline_in_s)
        if child.decision == "starting":
            text = (
                f"{left} of {child.start_timeout_s:g} s are left to become ready, then it is killed"
            )
            rows.append(("time", text))
        elif child.decision == "stopping":
            rows.append(("time", f"{left} of {child.shutdown_s:g} s are left, then it is killed"))
    elif child.decision == "stopping" and child.shutdown_s is None:
        rows.append(("time", "it may take as long as it needs"))
    if child.order is not None and child.decision not in ("stopped", "stopping"):
        rows.append(("operator", f"{child.order.verb}, {age(now_s - child.order.time_s)} ago"))
    return rows


def _hold(hold: Hold, child: ChildExplanation) -> str:
    left = "" if hold.left_s is None else f", {took(hold.left_s)} at most"
    match hold.kind:
        case "pause":
            return "the pause before the next try, so that a lasting fault causes no storm"
        case "dependency":
            return next((_named(r) for r in child.depends_on if r.path == hold.path), hold.path)
        case "stop":
            return f"{hold.path} to stop first{left}"
        case "slots":
            return "siblings that are starting; only so many start at once"
        case "supervisor":
            return f"nothing: {hold.path} is stopping and starts no more children"
        case other:
            return f"{other} {hold.path}"


def _exited(child: ChildExplanation, now_s: float) -> str:
    """How often it has ended lately, against what is allowed."""
    budget, count = child.budget, _recent(child, now_s)
    if not count:
        return "an operator wanted so" if child.order is not None else "its last end was expected"
    times = "once" if count == 1 else f"{count} times"
    return f"exited {times} in the last {budget.period_s:g} s (limit {budget.intensity})"


def _recent(child: ChildExplanation, now_s: float) -> int:
    """Ends that nobody wanted, within the period that counts."""
    first_s = now_s - child.budget.period_s
    return sum(end.kind not in _EXPECTED and end.time_s >= first_s for end in child.exits)


def _restarts(child: ChildExplanation) -> str:
    who = names.parent_path(child.path) if child.budget.shared else "it"
    after = "gives up past them" if child.budget.shared else "rests longer past them"
    return f"{child.restarts} so far; {who} {_used(child.budget)} and {after}"


def _used(budget: Budget) -> str:
    return f"has used {budget.used} of {budget.intensity} within {budget.period_s:g} s"


def _relation_rows(explained: Explained, child: ChildExplanation) -> list[tuple[str, str]]:
    dependents = [*child.dependents, *(r for above in explained.above for r in above.dependents)]
    behind = {r.path for r in dependents if r.holds}
    rows = [
        ("wait for it", ", ".join(r.path for r in dependents if r.path in behind)),
        ("needs", ", ".join(map(_named, (r for r in child.depends_on if not r.holds)))),
        ("needed by", ", ".join(_unique(r.path for r in dependents if r.path not in behind))),
        ("takes along", ", ".join(child.takes_along)),
    ]
    return [(title, text) for title, text in rows if text]


def _process(explained: Explained, child: ChildExplanation) -> str:
    if child.pid is None:
        return f"none; it has had {child.incarnation}"
    up = explained.component.uptime_s
    return f"pid {child.pid}, number {child.incarnation}" + (
        "" if up is None else f", {age(up)} old"
    )


def _rules(explained: Explained, child: ChildExplanation) -> str:
    stop = "any time" if child.shutdown_s is None else f"{child.shutdown_s:g} s"
    supervisor = explained.supervisor
    strategy = "" if supervisor is None else f"; {supervisor.strategy} in {supervisor.path}"
    return (
        f"{_FAILURES.get(child.failure, child.failure)}; {_RESTARTS.get(child.restart, '')};"
        f" {child.start_timeout_s:g} s to start, {stop} to stop{strategy}"
    )


def _exit_lines(exits: Sequence[PastExit], now_s: float, width: int) -> list[Line]:
    """The last ends, the newest first."""
    lines = [line(Span(f"{'LAST EXITS':12}  {'AGO':>7}  {'RAN FOR':>8}  REASON", Tone.STRONG))]
    for end in reversed(exits):
        head = f"{clock(end.time_s)}  {age(now_s - end.time_s):>7}  {took(end.ran_s):>8}  "
        reason = f"{end.kind}: {end.detail}" if end.detail else end.kind
        reason += f" ({end.code})" if end.code else ""
        reason += f", began in {end.origin}" if end.origin else ""
        tone = Tone.PLAIN if end.kind in _EXPECTED else Tone.BAD
        for index, part in enumerate(wrap(reason, width - len(head))):
            lines.append(line(" " * len(head) if index else head, Span(part, tone)))
    return lines


# -- words --------------------------------------------------------------------------------------


def _named(relation: Relation) -> str:
    return f"{relation.path} ({relation.state.value})"


def _by_order(child: ChildExplanation, now_s: float) -> str:
    if child.order is None or child.order.verb not in ("stop", "restart"):
        return ""
    return f" by an operator {age(now_s - child.order.time_s)} ago"


def _times(count: int) -> str:
    return "for now" if count <= 1 else f"for the {count}{_ORDINALS.get(count, 'th')} time in a row"


_ORDINALS = {2: "nd", 3: "rd", **{n: s for t in range(20, 100, 10) for n, s in
             ((t + 1, "st"), (t + 2, "nd"), (t + 3, "rd"))}}  # fmt: skip


def _unique(texts: Iterable[str]) -> list[str]:
    return [printable(text) for text in dict.fromkeys(texts)]
