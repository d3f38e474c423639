"""novacronctl top: what each component uses, again and again."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import click

from protocol import names
from protocol.messages.status import NodeStatus
from services.ctl import output, procfs
from services.ctl.client import Client
from services.ctl.errors import NodeHungError, NotRunningError
from services.ctl.schema import to_json
from services.ctl.session import Session, examples, node_options
from services.ctl.usage import Meter, Sort, TopReport, in_order
from services.ctl.usagetable import KEYS, render_top
from supervisor.posix.processes import descendants_of

# A rate needs two looks; this far apart a tick of the kernel's clock is one percent.
_FIRST_INTERVAL_S = 1.0


@click.command(
    "top",
    epilog=examples(
        "novacronctl top",
        "novacronctl top --sort memory --pss",
        "novacronctl top --once",
        "novacronctl top --json --interval 10 | jq '.components[] | {path, cpu_percent}'",
    ),
)
@node_options
@click.option(
    "--sort",
    type=click.Choice([sort.value for sort in Sort]),
    default=Sort.CPU.value,
    show_default=True,
    help="What comes first.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two samples.",
)
@click.option("--pss", is_flag=True, help="Measure proportional memory, which costs more.")
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option("--json", "as_json", is_flag=True, help="Print each sample as JSON.")
@click.pass_obj
def command(
    session: Session, *, sort: str, interval: float, pss: bool, once: bool, as_json: bool
) -> None:
    """Show what each component uses of CPU, memory, threads and descriptors, busiest first.

    CPU is in percent of one processor. Memory is the resident size, which counts what processes
    share in each of them; with --pss (or the key p) each gets its share. A command such as
    PostgreSQL is counted with all processes below it, shown as '+N'.

    Keys: c CPU, m memory, r restarts, n name, p proportional memory, q quit.

    Where the output is no terminal a table is printed every --interval seconds, with --json a line.
    Reads /proc, so it has to run on the node's machine; what this user may not see is shown as '-'.
    """
    order = Sort(sort)
    client = session.client()
    sampler = Sampler(client, is_proportional=pss)
    try:
        if once:
            sampler.sample()
            time.sleep(min(interval, _FIRST_INTERVAL_S))
            _print(sampler.sample(), order, as_json=as_json, indent=2)
        elif as_json or not output.is_terminal():
            for report in _samples(client, sampler, interval):
                _print(report, order, as_json=as_json, indent=None)
                if not as_json:
                    output.show([()])
        else:
            _run_screen(client, sampler, order, interval)
    except KeyboardInterrupt:
        if once:
            raise
    finally:
        client.close()


class Sampler:
    """Asks the node which processes it has, and the kernel what they use.

    Args:
        client: the node.
        is_proportional: measure proportional memory; may be changed at any time.
    """

    def __init__(self, client: Client, *, is_proportional: bool) -> None:
        self.is_proportional = is_proportional
        self._client = client
        self._meter = Meter()

    def sample(self) -> TopReport:
        """One sample; errors as in ``Client.call``."""
        status = self._client.status()
        readings = {path: list(self._read(pids)) for path, pids in _processes(status)}
        return self._meter.report(
            status,
            readings,
            procfs.read_machine(),
            now_s=time.monotonic(),
            unix_s=time.time(),
        )

    def _read(self, pids: list[int]) -> Iterator[procfs.Reading]:
        for pid in pids:
            reading = procfs.read_process(pid, is_proportional=self.is_proportional)
            if reading is not None:
                yield reading


def _processes(status: NodeStatus) -> Iterator[tuple[str, list[int]]]:
    """Each component's processes: its own, and for a command those that it made."""
    yield names.ROOT, [status.platform.pid]
    for component in status.components:
        if component.pid is not None:
            below = descendants_of(component.pid) if component.kind == "command" else []
            yield component.path, [component.pid, *below]


def _samples(client: Client, sampler: Sampler, interval_s: float) -> Iterator[TopReport]:
    """Samples for ever, from the second one on; a node that is down is waited for."""
    complained, has_begun = "", False
    while True:
        try:
            report = sampler.sample()
        except (NotRunningError, NodeHungError) as exc:
            client.close()
            if complained != (complained := str(exc)):
                output.note(f"{exc}; waiting for it")
        else:
            complained = ""
            if has_begun:
                yield report
        time.sleep(interval_s if has_begun else min(interval_s, _FIRST_INTERVAL_S))
        has_begun = True


def _run_screen(client: Client, sampler: Sampler, order: Sort, interval_s: float) -> None:
    from services.ctl.screen import Screen
    from services.ctl.watch import not_running

    with Screen() as screen:
        pause_s = min(interval_s, _FIRST_INTERVAL_S)
        while True:
            next_s = time.monotonic() + pause_s
            report = None
            try:
                report = sampler.sample()
            except (NotRunningError, NodeHungError) as exc:
                client.close()
                screen.draw([not_running(exc)])
            while True:
                if report is not None:
                    has_keys = screen.takes_keys
                    screen.draw(render_top(report, order, width=screen.width, has_keys=has_keys))
                key = screen.wait(next_s - time.monotonic())
                if key == "q":
                    return
                order = KEYS.get(key, order)
                if key == "p":
                    sampler.is_proportional = not sampler.is_proportional
                    break
                if not key and next_s <= time.monotonic():
                    break
            pause_s = interval_s


def _print(report: TopReport, order: Sort, *, as_json: bool, indent: int | None) -> None:
    if as_json:
        report = dataclasses.replace(report, components=in_order(report.components, order))
        output.show_json(to_json(report), indent=indent)
    else:
        output.show(render_top(report, order, width=output.width()))
