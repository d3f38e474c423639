"""``python -m tests.lab``: hosts of their own on one machine, to play with and to test on."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from typing import Any

import click

from tests.lab import lab as labs
from tests.lab.errors import LabError
from tests.lab.guest.commands import guest
from tests.lab.lab import Lab, LabPlan
from tests.lab.link import Link
from tests.lab.speed import measure
from tests.lab.units import Shape, parse_shape

_EXAMPLES = """
\b
Examples:
  python -m tests.lab up --rate 200mbit --delay 50ms --loss 1%
  python -m tests.lab exec host1 -- novacronctl status
  python -m tests.lab link --from 1 --loss 5%
  python -m tests.lab cut --from 2
  python -m tests.lab guest start --host host1
  python -m tests.lab down
"""


class _Group(click.Group):
    """Errors with a name end a command with their sentence; Ctrl-C with 130."""

    def invoke(self, ctx: click.Context) -> Any:
        """Carry out the command."""
        try:
            return super().invoke(ctx)
        except LabError as exc:
            click.echo(f"lab: {exc}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)


@click.group(cls=_Group, epilog=_EXAMPLES)
@click.option("--name", envvar="NCLAB_NAME", default="lab", help="Which lab.")
@click.pass_context
def main(context: click.Context, name: str) -> None:
    """Hosts with a libvirtd and a NovaCron node each, and links that can be made bad."""
    context.obj = name


def _shape_options(command: Any) -> Any:
    for option, text in (
        ("--queue", "Bytes that wait for transmission, such as 256kib."),
        ("--loss", "Share of the packets, such as 1%."),
        ("--delay", "One way, such as 50ms."),
        ("--rate", "Such as 200mbit; 0: no limit."),
    ):
        command = click.option(option, help=text)(command)
    return command


def _interrupt(_number: int, _frame: object) -> None:
    """End ``up`` once; what comes while the lab is taken down would leave half of it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@main.command()
@click.option("--hosts", default=2, show_default=True, help="How many, 2 to 8.")
@_shape_options
@click.option("--nodes/--no-nodes", default=True, help="Start a NovaCron node on each host.")
@click.option("--libvirt/--no-libvirt", default=True, help="Start a libvirtd on each host.")
@click.option("--wait", is_flag=True, help="Stay until Ctrl-C, and take the lab down then.")
@click.pass_obj
def up(
    name: str, /, *, hosts: int, nodes: bool, libvirt: bool, wait: bool, **shape: str | None
) -> None:
    """Build the lab."""
    plan = LabPlan(
        hosts=hosts,
        shape=parse_shape(**shape),
        has_nodes=nodes,
        has_libvirtd=libvirt,
        owner_pid=os.getpid() if wait else None,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    built = labs.build(name, plan, say=lambda text: click.echo(text, err=True))
    click.echo(f"{', '.join(host.name for host in built.hosts)} are ready:")
    click.echo("  python -m tests.lab exec host1 -- novacronctl status")
    if not wait:
        click.echo("  python -m tests.lab down")
        return
    click.echo("Ctrl-C takes the lab down.")
    try:
        signal.pause()
    finally:
        labs.take_down(name)


@main.command()
@click.pass_obj
def down(name: str) -> None:
    """Take the lab down, or what an interrupted command has left of it."""
    click.echo(f"lab {name} is gone" if labs.take_down(name) else f"there is no lab {name}")


@main.command(name="exec", context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def execute(name: str, host: str, command: tuple[str, ...]) -> None:
    """Run a COMMAND on a HOST."""
    from tests.lab.marks import marked_environ

    lab = labs.find(name)
    argv = lab.host(host).enter(*command)
    os.execvpe(argv[0], argv, marked_environ(lab.directory))


@main.command()
@click.argument("host")
@click.argument("service", type=click.Choice(["node", "libvirtd"]))
@click.argument("action", type=click.Choice(["start", "stop", "restart", "kill"]))
@click.pass_obj
def service(name: str, *, host: str, service: str, action: str) -> None:
    """Start or end the node or libvirtd of a HOST; kill: kill -9 of all its processes.

    Guests are no processes of either, and run on.
    """
    found = labs.find(name).host(host)
    if action == "kill":
        found.signal_service(service, signal.SIGKILL, tree=True)
    if action in ("stop", "restart"):
        found.signal_service(service, signal.SIGTERM)
    if action in ("start", "restart"):
        found.start_service(service)


def _link_options(command: Any) -> Any:
    sender = click.option("--from", "sender", type=int, help="Only what this host sends.")
    return sender(click.option("--between", default="1-2", show_default=True)(command))


@main.command()
@_link_options
@_shape_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def link(
    name: str, /, *, between: str, sender: int | None, as_json: bool, **shape: str | None
) -> None:
    """Show a link, after changing what is given."""
    found = labs.find(name).link(between)
    found.change(parse_shape(**shape), sender=sender)
    _show_link(found, as_json=as_json)


@main.command()
@_link_options
@click.pass_obj
def cut(name: str, *, between: str, sender: int | None) -> None:
    """Let nothing through a link, in one direction or both."""
    labs.find(name).link(between).change(Shape(is_cut=True), sender=sender)


@main.command()
@_link_options
@click.pass_obj
def mend(name: str, *, between: str, sender: int | None) -> None:
    """Undo a cut."""
    labs.find(name).link(between).change(Shape(is_cut=False), sender=sender)


@main.command()
@click.option("--seconds", default=3.0, show_default=True)
@click.option("--from", "sender", default="host1", show_default=True)
@click.option("--to", "receiver", default="host2", show_default=True)
@click.pass_obj
def speed(name: str, *, seconds: float, sender: str, receiver: str) -> None:
    """Measure what one TCP connection reaches between two hosts."""
    lab = labs.find(name)
    found = measure(lab.host(sender), lab.host(receiver), seconds=seconds)
    click.echo(f"{found.bits_s / 1e6:.1f} Mbit/s over {found.seconds:.1f} s by {found.by}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def status(name: str, *, as_json: bool) -> None:
    """Show hosts, services, guests and links."""
    from tests.lab.guest.guests import domains

    lab = labs.find(name)
    found: dict[str, dict[str, Any]] = {
        host.name: {"address": host.address, "services": host.services(), "guests": {}}
        for host in lab.hosts
    }
    for host in lab.hosts:
        if found[host.name]["services"]["libvirtd"]:
            found[host.name]["guests"] = domains(host)
    if as_json:
        click.echo(json.dumps({"hosts": found, "links": _as_dict(lab)}))
        return
    for host_name, values in found.items():
        running = [key for key, pid in values["services"].items() if pid]
        guests = [f"{key} {state}" for key, state in values["guests"].items()]
        click.echo(f"{host_name} {values['address']}: {', '.join(running + guests) or 'nothing'}")
    for one in lab.links:
        _show_link(one, as_json=False)


def _as_dict(lab: Lab) -> dict[str, Any]:
    return {
        link.name: {
            f"from{number}": dataclasses.asdict(link.direction(sender=number))
            for number in (link.first, link.second)
        }
        for link in lab.links
    }


def _show_link(found: Link, *, as_json: bool) -> None:
    both = {number: found.direction(sender=number) for number in (found.first, found.second)}
    if as_json:
        click.echo(json.dumps({f"from{n}": dataclasses.asdict(d) for n, d in both.items()}))
        return
    for number, d in both.items():
        rate = f"{d.rate_bits_s / 1e6:g} Mbit/s" if d.rate_bits_s else "no limit"
        click.echo(
            f"link {found.name} from host{number}: {'CUT, ' if d.is_cut else ''}{rate},"
            f" {d.delay_us / 1e3:g} ms, loss {d.loss_ppm / 1e4:g}%, queue {d.queue_bytes} bytes;"
            f" {d.packets_in} packets in, {d.packets_out} out, {d.lost} lost,"
            f" {d.queue_full} without room, {d.cut} cut"
        )


main.add_command(guest)

if __name__ == "__main__":
    main(prog_name="python -m tests.lab")
