"""The state and the boot of a node as lines for a person; pure.

Nothing is cut: a table that does not fit drops its least important columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protocol.messages.health import HealthState
from protocol.messages.status import (
    BootReport,
    ComponentStatus,
    NodeStatus,
    Timing,
    Verdict,
)
from services.ctl.amounts import age, size, took
from services.ctl.components import Branch, branches
from services.ctl.styled import Column, Line, Span, Tone, line, pad, printable, table, wrap

STATE_TONES: Mapping[HealthState, Tone] = {
    HealthState.HEALTHY: Tone.GOOD,
    HealthState.DEGRADED: Tone.CAUTION,
    HealthState.UNHEALTHY: Tone.BAD,
    HealthState.STARTING: Tone.NOTE,
    HealthState.STOPPED: Tone.FAINT,
}
VERDICTS: Mapping[Verdict, tuple[str, Tone]] = {
    Verdict.READY: ("ready", Tone.GOOD),
    Verdict.DEGRADED: ("degraded", Tone.CAUTION),
    Verdict.NOT_READY: ("not ready", Tone.BAD),
}
_OUTCOME_TONES: Mapping[str, Tone] = {
    "ready": Tone.GOOD,
    "degraded": Tone.CAUTION,
    "failed": Tone.BAD,
    "running": Tone.NOTE,
}
_STATUS_COLUMNS = (
    Column("COMPONENT"),
    Column("LEVEL", rank=3),
    Column("STATE"),
    Column("PID", right=True, rank=2),
    Column("CPUS", right=True, rank=5),
    Column("RESTARTS", right=True, rank=1),
    Column("UPTIME", right=True),
    Column("MEMORY", right=True, rank=4),
)
_BOOT_COLUMNS = (
    Column("NAME"),
    Column("START", right=True, rank=2),
    Column("TOOK", right=True),
    Column("OUTCOME", rank=1),
    Column(""),
)
# Shorter bars say nothing, longer ones nothing more.
_BAR_CELLS_MIN = 10
_BAR_CELLS_MAX = 40


def render_status(status: NodeStatus, *, width: int) -> list[Line]:
    """The status screen: the verdict and its cause, the platform, then each component."""
    lines = [_verdict_line(status), (), *_platform_lines(status), ()]
    lines += _component_lines(status.components, width=width)
    return lines


def render_tree(
    status: NodeStatus, *, width: int, changed: frozenset[str] = frozenset()
) -> list[Line]:
    """The tree of processes by their ids, with states and reasons.

    Args:
        status: the node.
        width: cells of the screen.
        changed: paths of the components that are marked, as another one than a moment ago.
    """
    platform = status.platform
    lines = [line(Span("novacron", Tone.STRONG), f"  {platform.pid}  ", *_verdict_spans(status))]
    for branch in branches(status.components):
        component = branch.component
        state = Span(component.state.value, STATE_TONES[component.state])
        pid = f"  {component.pid}" if component.pid is not None else ""
        is_marked = component.path in changed
        name = Span(component.id, Tone.MARK if is_marked else Tone.PLAIN)
        lines.append(line(branch.prefix, name, f"{pid}  ", state, " *" if is_marked else ""))
        lines += _reason_lines(branch, width)
    return lines


def render_boot(report: BootReport, *, width: int) -> list[Line]:
    """Where the time of a boot went: each phase and its components, with a bar on one time line."""
    timings = _in_phases(report)
    end_s = max((timing.start_s + timing.duration_s for timing, _name in timings), default=0.0)
    total_s = end_s if report.total_s is None else report.total_s
    head = "boot took" if report.total_s is not None else "booting for"
    rows = [_boot_row(timing, name) for timing, name in timings]
    heads = tuple(Span(column.title) for column in _BOOT_COLUMNS)
    text_cells = sum(max(len(row[i].text) for row in (heads, *rows)) + 2 for i in range(4))
    bar_cells = min(max(width - text_cells, _BAR_CELLS_MIN), _BAR_CELLS_MAX)
    barred = [
        (*row, _bar(timing, max(total_s, end_s), bar_cells))
        for row, (timing, _name) in zip(rows, timings, strict=True)
    ]
    title = line(Span(f"{head} {took(total_s)}", Tone.STRONG))
    return [title, (), *table(_BOOT_COLUMNS, barred, width=width)]


def _verdict_spans(status: NodeStatus) -> tuple[Span, Span]:
    word, tone = VERDICTS[status.verdict]
    return Span(word, tone), Span(f": {_cause(status)}")


def _verdict_line(status: NodeStatus) -> Line:
    word, sentence = _verdict_spans(status)
    return line(Span(word.text, word.tone), sentence)


def _cause(status: NodeStatus) -> str:
    """The one sentence after the verdict; the root's own, or what the components say."""
    if status.reason:
        return printable(status.reason)
    if status.verdict is Verdict.READY:
        running = sum(component.state is HealthState.HEALTHY for component in status.components)
        return f"all {running} components are healthy"
    for component in status.components:
        if component.state in (HealthState.UNHEALTHY, HealthState.DEGRADED):
            return f"{component.path} is {component.state.value}"
    return f"in phase {status.phase.number}, {status.phase.name}"


def _platform_lines(status: NodeStatus) -> list[Line]:
    platform, phase = status.platform, status.phase
    booted = (
        f"boot took {took(platform.boot_s)}" if platform.boot_s is not None else "still booting"
    )
    roles = ", ".join(platform.roles)
    rows = (
        ("platform", f"{platform.name} {platform.version}, node {platform.node_id}"),
        ("runs as", f"{platform.environment} ({roles}), pid {platform.pid}"),
        ("phase", f"{phase.number} {phase.name}{' (complete)' if phase.complete else ''}"),
        ("uptime", f"{age(platform.uptime_s)}, {booted}"),
        ("state", platform.state_dir),
    )
    return [line(Span(pad(title, 10), Tone.FAINT), printable(text)) for title, text in rows]


def _component_lines(components: Sequence[ComponentStatus], *, width: int) -> list[Line]:
    drawn = branches(components)
    head, *rows = table(_STATUS_COLUMNS, [_status_row(branch) for branch in drawn], width=width)
    lines = [head]
    for branch, row in zip(drawn, rows, strict=True):
        lines += [row, *_reason_lines(branch, width)]
    return lines


def _status_row(branch: Branch) -> tuple[Span, ...]:
    component = branch.component
    return (
        Span(f"{branch.prefix}{component.id}"),
        Span(component.level, Tone.FAINT),
        Span(component.state.value, STATE_TONES[component.state]),
        Span("-" if component.pid is None else str(component.pid)),
        Span(cpu_list(component.cpus)),
        Span(str(component.restarts), Tone.CAUTION if component.restarts else Tone.PLAIN),
        Span("-" if component.uptime_s is None else age(component.uptime_s)),
        Span("-" if component.memory_bytes is None else size(component.memory_bytes)),
    )


def _reason_lines(branch: Branch, width: int) -> list[Line]:
    """Why a component is not healthy, how its last process ended, and when it is tried again."""
    component = branch.component
    if component.state is HealthState.HEALTHY:
        return []
    parts = [component.reason] if component.reason else []
    if component.last_exit and component.last_exit not in component.reason:
        parts.append(f"last exit: {component.last_exit}")
    if component.retry_in_s is not None:
        parts.append(f"next try in {took(component.retry_in_s)}")
    if not parts:
        return []
    texts = wrap("; ".join(parts), width - len(branch.below))
    return [line(branch.below, Span(text, STATE_TONES[component.state])) for text in texts]


def cpu_list(cpus: Sequence[int]) -> str:
    """CPU numbers as ranges, ``0-3,8``; ``all`` when there is no pinning."""
    if not cpus:
        return "all"
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def _in_phases(report: BootReport) -> list[tuple[Timing, str]]:
    """Phases, each followed by its components in the order in which they began."""
    components = sorted(report.components, key=lambda timing: timing.start_s)
    known = {phase.phase for phase in report.phases}
    found: list[tuple[Timing, str]] = []
    for phase in report.phases:
        found.append((phase, f"{phase.phase} {phase.name}"))
        found += [(t, f"  {t.name}") for t in components if t.phase == phase.phase]
    return found + [(t, f"  {t.name}") for t in components if t.phase not in known]


def _boot_row(timing: Timing, name: str) -> tuple[Span, ...]:
    return (
        Span(printable(name)),
        Span(took(timing.start_s)),
        Span(took(timing.duration_s)),
        Span(timing.outcome, _OUTCOME_TONES.get(timing.outcome, Tone.PLAIN)),
    )


def _bar(timing: Timing, span_s: float, bar_cells: int) -> Span:
    """The timing's place in the whole boot; what took any time shows at least one cell."""
    if span_s <= 0:
        return Span("")
    first = min(int(timing.start_s / span_s * bar_cells), bar_cells - 1)
    last = round((timing.start_s + timing.duration_s) / span_s * bar_cells)
    length = max(min(last, bar_cells) - first, 1)
    return Span("·" * first + "█" * length, _OUTCOME_TONES.get(timing.outcome, Tone.PLAIN))
