"""novacronctl vm top and vm status: what machines use, and how the VM level is."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from services.ctl import output
from services.ctl.errors import CtlError, NodeHungError, NotRunningError
from services.ctl.session import Session, examples, node_options
from services.ctl.vm_orders import ASK_TIMEOUT_S, ask, ask_on
from services.ctl.vm_usage import KEYS, VmSort, render_vm_status, render_vm_top, vm_order

if TYPE_CHECKING:
    from services.ctl.client import Client
    from services.vm.statistics.model import StatisticsReply

# A rate needs two looks.
_FIRST_INTERVAL_S = 1.0

Ask = Callable[[float], "StatisticsReply"]


@click.command(
    "top",
    epilog=examples(
        "novacronctl vm top",
        "novacronctl vm top --sort disk --interval 5",
        "novacronctl vm top --once web1        (one machine)",
        "novacronctl vm top --once --json web1 | jq '.domains[].disks'",
    ),
)
@node_options
@click.argument("name", required=False, default="")
@click.option(
    "--sort",
    type=click.Choice([sort.value for sort in VmSort]),
    default=VmSort.CPU.value,
    show_default=True,
    help="What comes first.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.5, max=3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks.",
)
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option("--json", "as_json", is_flag=True, help="Print each look as JSON.")
@click.pass_obj
def top(
    session: Session, name: str, *, sort: str, interval: float, once: bool, as_json: bool
) -> None:
    """Show what running machines use of CPU, memory, disks and networks, busiest first.

    CPU is in percent of one processor. USED is what the guest's system uses of the memory that is
    ASSIGNED to it at the moment, of at most MAXIMUM; only a guest with a balloon driver tells it.
    RX is what the guest receives. With --json and a NAME its disks and interfaces are told singly.

    Keys: c CPU, m memory, d disk, t network, n name, q quit.

    Where the output is no terminal a table is printed every --interval seconds, with --json a line.
    """
    order = VmSort(sort)
    client = session.client(timeout_s=ASK_TIMEOUT_S)

    def look(age_max_s: float) -> StatisticsReply:
        from services.vm.statistics.model import StatisticsReply

        body = {"domain": name, "age_max_s": age_max_s}
        return ask_on(client, "vm.statistics", body, StatisticsReply)

    try:
        if once:
            _print(_once(look, min(interval, _FIRST_INTERVAL_S)), order, as_json=as_json, indent=2)
        elif as_json or not output.is_terminal():
            for reply in _looks(client, look, interval):
                _print(reply, order, as_json=as_json, indent=None)
                if not as_json:
                    output.show([()])
        else:
            _run_screen(client, look, order, interval)
    except KeyboardInterrupt:
        if once:
            raise
    finally:
        client.close()


@click.command(
    "status",
    epilog=examples("novacronctl vm status", "novacronctl vm status --json | jq .autostart"),
)
@node_options
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_obj
def status(session: Session, *, as_json: bool) -> None:
    """Show the connection to libvirt, and what became of the machines that start with the host."""
    from services.vm.model import VmStatus

    found = ask(session, "vm.status", None, VmStatus)
    if as_json:
        from services.ctl.schema import to_json

        output.show_json(to_json(found), indent=2)
    else:
        output.show(render_vm_status(found, now_s=time.time(), width=output.width()))


def _once(look: Ask, pause_s: float) -> StatisticsReply:
    """Figures of the moment: of two looks the later one, as the first has no rates to tell."""
    look(pause_s)
    time.sleep(pause_s)
    return look(0.0)


def _looks(client: Client, look: Ask, interval_s: float) -> Iterator[StatisticsReply]:
    """Figures for ever; a node that is down is waited for."""
    complained, pause_s = "", _FIRST_INTERVAL_S
    while True:
        try:
            reply = look(interval_s / 2)
        except (NotRunningError, NodeHungError) as exc:
            client.close()
            if complained != (complained := str(exc)):
                output.note(f"{exc}; waiting for it")
        else:
            complained = ""
            if pause_s == interval_s or reply.interval_s is not None:
                yield reply
        time.sleep(min(pause_s, interval_s))
        pause_s = interval_s


def _run_screen(client: Client, look: Ask, order: VmSort, interval_s: float) -> None:
    from services.ctl.screen import Screen
    from services.ctl.watch import not_running

    with Screen() as screen:
        pause_s = min(interval_s, _FIRST_INTERVAL_S)
        while True:
            next_s = time.monotonic() + pause_s
            reply = None
            try:
                reply = look(pause_s / 2)
            except (NotRunningError, NodeHungError) as exc:
                client.close()
                screen.draw([not_running(exc)])
            except CtlError as exc:  # the VM service restarts, or is stopped
                screen.draw([not_running(exc)])
            while True:
                if reply is not None:
                    has_keys = screen.takes_keys
                    screen.draw(render_vm_top(reply, order, width=screen.width, has_keys=has_keys))
                key = screen.wait(next_s - time.monotonic())
                if key == "q":
                    return
                order = KEYS.get(key, order)
                if not key and next_s <= time.monotonic():
                    break
            pause_s = interval_s


def _print(reply: StatisticsReply, order: VmSort, *, as_json: bool, indent: int | None) -> None:
    if as_json:
        from services.ctl.schema import to_json

        reply = dataclasses.replace(reply, domains=vm_order(reply.domains, order))
        output.show_json(to_json(reply), indent=indent)
    else:
        output.show(render_vm_top(reply, order, width=output.width()))
