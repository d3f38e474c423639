"""The screen of novacronctl top; pure."""

from __future__ import annotations

import time

from services.ctl.amounts import age, size
from services.ctl.render import STATE_TONES, VERDICTS
from services.ctl.styled import Column, Line, Span, Tone, line, pad, printable, table, wrap
from services.ctl.usage import ComponentUsage, NodeUsage, Sort, TopReport, in_order, memory_of

# From here on a component keeps a processor busy.
_BUSY_PERCENT = 80.0
KEYS = {"c": Sort.CPU, "m": Sort.MEMORY, "r": Sort.RESTARTS, "n": Sort.NAME}


def render_top(report: TopReport, sort: Sort, *, width: int, has_keys: bool = False) -> list[Line]:
    """The node in three lines, then its components, most of what is sorted by first.

    Args:
        report: one sample.
        sort: the order.
        width: cells of the screen. Columns that do not fit go, those sorted by last.
        has_keys: also say which keys do what.
    """
    lines = _head(report, width)
    if has_keys:
        lines.append(_key_line(sort))
    rows = [_row(component) for component in in_order(report.components, sort)]
    return [*lines, (), *table(_columns(report, sort), rows, width=width)]


def _head(report: TopReport, width: int) -> list[Line]:
    node = report.node
    word, tone = VERDICTS[node.verdict]
    because = f": {printable(node.reason)}" if node.reason else ""
    percent = "-" if node.cpu_percent is None else f"{node.cpu_percent:.1f}%"
    load = " ".join(f"{value:.2f}" for value in node.load)
    clock = time.strftime("%H:%M:%S", time.localtime(report.time_s))
    rows = (
        (
            "node",
            f"{node.node_id}, pid {node.pid}, up {age(node.uptime_s)}, {_many(node)}, {clock}",
        ),
        ("usage", f"CPU {percent} of {node.cpus}00%, load {load}; memory {_memory(node)}"),
    )
    lines = [line(Span(word, tone), because)]
    for title, text in rows:
        for index, part in enumerate(wrap(text, width - 8)):
            lines.append(line(Span(pad("" if index else title, 8), Tone.FAINT), part))
    return lines


def _many(node: NodeUsage) -> str:
    counts = ((node.processes, "process", "es"), (node.threads, "thread", "s"))
    return ", ".join(
        f"{count} {word}{more * (count != 1)}"
        for count, word, more in (*counts, (node.restarts, "restart", "s"))
    )


def _memory(node: NodeUsage) -> str:
    if node.proportional_bytes is None:
        used = f"{size(node.resident_bytes)} RSS"
    else:
        used = f"{size(node.proportional_bytes)} PSS"
    if not node.memory_total_bytes:
        return used
    free = size(node.memory_available_bytes)
    return f"{used} of {size(node.memory_total_bytes)}, {free} available"


def _key_line(sort: Sort) -> Line:
    spans: list[Span | str] = [Span("keys    ", Tone.FAINT)]
    for key, what in KEYS.items():
        tone = Tone.STRONG if what is sort else Tone.FAINT
        spans += [key, Span(f" {what.value}  ", tone)]
    return line(*spans, "p", Span(" proportional memory  ", Tone.FAINT), "q", Span(" quit"))


def _columns(report: TopReport, sort: Sort) -> tuple[Column, ...]:
    """The columns; what is sorted by stays the longest."""
    memory = "RSS" if report.node.proportional_bytes is None else "PSS"
    return (
        Column("COMPONENT"),
        Column("STATE", rank=1),
        Column("PID", right=True, rank=4),
        Column("CPU%", right=True),
        Column(memory, right=True, rank=0 if sort is Sort.MEMORY else 2),
        Column("THREADS", right=True, rank=7),
        Column("FDS", right=True, rank=6),
        Column("RESTARTS", right=True, rank=0 if sort is Sort.RESTARTS else 5),
        Column("UPTIME", right=True, rank=3),
    )


def _row(component: ComponentUsage) -> tuple[Span, ...]:
    memory, cpu = memory_of(component), component.cpu_percent
    more = f" +{component.processes - 1}" if component.processes > 1 else ""
    return (
        Span(f"{component.path}{more}"),
        Span(component.state.value, STATE_TONES[component.state]),
        Span(_number(component.pid)),
        Span(
            "-" if cpu is None else f"{cpu:.1f}",
            Tone.CAUTION if cpu is not None and cpu >= _BUSY_PERCENT else Tone.PLAIN,
        ),
        Span("-" if memory is None else size(memory)),
        Span(_number(component.threads)),
        Span(_number(component.fds)),
        Span(str(component.restarts), Tone.CAUTION if component.restarts else Tone.PLAIN),
        Span("-" if component.uptime_s is None else age(component.uptime_s)),
    )


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)
