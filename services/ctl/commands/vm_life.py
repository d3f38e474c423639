"""novacronctl vm: start, stop and the other steps of a guest's life."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from protocol.records import Plain
from services.ctl import output
from services.ctl.errors import CtlError, UsageError
from services.ctl.session import Session, examples, node_options
from services.ctl.vm_orders import (
    ASK_TIMEOUT_S,
    VM,
    ask,
    ask_on,
    give_order,
    order_options,
    watch,
)
from services.ctl.vm_orders import show as show_order

_seconds = click.FloatRange(min=0, max=3600)


@click.command(
    "start",
    epilog=examples(
        "novacronctl vm start web1",
        "novacronctl vm start --fresh web1",
        "novacronctl vm start --takeover web1      (the host that had it is off)",
    ),
)
@node_options
@click.argument("name")
@click.option("--paused", is_flag=True, help="Hold it before its first instruction.")
@click.option("--fresh", is_flag=True, help="Forget its saved state and boot.")
@click.option(
    "--takeover",
    is_flag=True,
    help="You have made sure that the host that had it is off, and its lease has expired.",
)
@order_options
@click.pass_obj
def start(session: Session, /, name: str, *, is_waiting: bool, as_json: bool, **how: bool) -> None:
    """Start the guest NAME, from its saved state where it has one.

    A guest that another node has, or had when it was last heard of, is refused.
    """
    body: dict[str, Plain] = {"domain": name, **how}
    give_order(session, "vm.start", body, is_waiting=is_waiting, as_json=as_json)


@click.command(
    "stop",
    epilog=examples(
        "novacronctl vm stop web1",
        "novacronctl vm stop --acpi-time 300 --no-force web1",
        "novacronctl vm stop --force web1          (like pulling the plug)",
    ),
)
@node_options
@click.argument("name")
@click.option(
    "--agent-time",
    "agent_s",
    type=_seconds,
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it may take after its agent was asked; 0 = do not ask.",
)
@click.option(
    "--acpi-time",
    "acpi_s",
    type=_seconds,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long after its power button was pressed; 0 = do not press.",
)
@click.option("--force", "mode", flag_value="force", help="Take its power away at once.")
@click.option("--no-force", "mode", flag_value="kind", help="Never take its power away.")
@order_options
@click.pass_obj
def stop(
    session: Session,
    name: str,
    *,
    agent_s: float,
    acpi_s: float,
    mode: str | None,
    is_waiting: bool,
    as_json: bool,
) -> None:
    """Stop the guest NAME: by its agent, then by ACPI, then by force, each within its time."""
    body: dict[str, Plain] = {"domain": name, "agent_s": agent_s, "acpi_s": acpi_s}
    if mode == "force":
        body.update(agent_s=0.0, acpi_s=0.0)
    elif mode == "kind":
        body["force_s"] = 0.0
    give_order(session, "vm.stop", body, is_waiting=is_waiting, as_json=as_json)


@click.command(
    "reboot",
    epilog=examples("novacronctl vm reboot web1", "novacronctl vm reboot --reset web1"),
)
@node_options
@click.argument("name")
@click.option("--reset", is_flag=True, help="Press its reset button instead of asking.")
@order_options
@click.pass_obj
def reboot(session: Session, name: str, *, reset: bool, is_waiting: bool, as_json: bool) -> None:
    """Have the guest NAME restart itself."""
    method = "vm.reset" if reset else "vm.reboot"
    give_order(session, method, {"domain": name}, is_waiting=is_waiting, as_json=as_json)


@click.command("pause", epilog=examples("novacronctl vm pause web1"))
@node_options
@click.argument("name")
@order_options
@click.pass_obj
def pause(session: Session, name: str, *, is_waiting: bool, as_json: bool) -> None:
    """Stop the processors of the guest NAME; its memory stays."""
    give_order(session, "vm.pause", {"domain": name}, is_waiting=is_waiting, as_json=as_json)


@click.command("resume", epilog=examples("novacronctl vm resume web1"))
@node_options
@click.argument("name")
@order_options
@click.pass_obj
def resume(session: Session, name: str, *, is_waiting: bool, as_json: bool) -> None:
    """Let the processors of the guest NAME go on."""
    give_order(session, "vm.resume", {"domain": name}, is_waiting=is_waiting, as_json=as_json)


@click.command(
    "save",
    epilog=examples(
        "novacronctl vm save web1                  (the next start goes on from there)",
        "novacronctl vm save web1 /var/lib/novacron/images/web1.save",
    ),
)
@node_options
@click.argument("name")
@click.argument("file", required=False)
@order_options
@click.pass_obj
def save(session: Session, name: str, file: str | None, *, is_waiting: bool, as_json: bool) -> None:
    """Write the memory of the guest NAME to FILE, or where libvirt keeps it, and end it."""
    body = {"domain": name, "file": file or ""}
    give_order(session, "vm.save", body, is_waiting=is_waiting, as_json=as_json)


@click.command(
    "restore",
    epilog=examples("novacronctl vm restore /var/lib/novacron/images/web1.save"),
)
@node_options
@click.argument("file")
@click.option("--paused", is_flag=True, help="Hold it where it was.")
@order_options
@click.pass_obj
def restore(session: Session, file: str, *, paused: bool, is_waiting: bool, as_json: bool) -> None:
    """Bring a guest back from FILE, which 'vm save' wrote."""
    body: dict[str, Plain] = {"file": file, "paused": paused}
    give_order(session, "vm.restore", body, is_waiting=is_waiting, as_json=as_json)


@click.command(
    "autostart",
    epilog=examples("novacronctl vm autostart web1 on", "novacronctl vm autostart web1 off"),
)
@node_options
@click.argument("name")
@click.argument("switch", type=click.Choice(["on", "off"]))
@order_options
@click.pass_obj
def autostart(session: Session, name: str, switch: str, *, is_waiting: bool, as_json: bool) -> None:
    """Have libvirt start the guest NAME with the host, or not."""
    body: dict[str, Plain] = {"domain": name, "enabled": switch == "on"}
    give_order(session, "vm.autostart", body, is_waiting=is_waiting, as_json=as_json)


@click.command(
    "screenshot",
    epilog=examples(
        "novacronctl vm screenshot web1 web1.png", "novacronctl vm screenshot web1 - | display -"
    ),
)
@node_options
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.pass_obj
def screenshot(session: Session, name: str, file: Path) -> None:
    """Write what the screen of the guest NAME shows to FILE, as PNG; '-' is standard output."""
    from services.vm.operations.model import Picture

    data = ask(session, "vm.screenshot", {"domain": name}, Picture).data
    if str(file) == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        with file.open("xb") as target:
            target.write(data)
    except FileExistsError:
        raise UsageError(f"{file} is there already; name another") from None
    except OSError as exc:
        raise CtlError(f"can't write {file}: {exc.strerror}") from exc


@click.command(
    "operations",
    epilog=examples(
        "novacronctl vm operations",
        "novacronctl vm operations 12              (wait for its end)",
    ),
)
@node_options
@click.argument("number", type=int, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@click.pass_obj
def operations(session: Session, number: int | None, *, as_json: bool) -> None:
    """Show the orders that the node carries out and has carried out, or follow NUMBER."""
    from services.ctl.vm_render import render_operations
    from services.vm.operations.model import OperationList, OperationRecord

    if number is not None:
        client = session.client(timeout_s=ASK_TIMEOUT_S)
        try:
            record = ask_on(client, "vm.operation", {"id": number}, OperationRecord)
            show_order(watch(client, record), as_json=as_json)
        finally:
            client.close()
        return
    found = ask(session, "vm.operations", None, OperationList)
    if as_json:
        from services.ctl.schema import to_json

        output.show_json(to_json(found), indent=2)
        return
    output.show(render_operations(found, now_s=time.time(), width=output.width()))


@click.command("cancel", epilog=examples("novacronctl vm cancel 12"))
@node_options
@click.argument("number", type=int)
@click.pass_obj
def cancel(session: Session, number: int) -> None:
    """End the operation NUMBER where it can be ended; what is done stays done."""
    from services.vm.operations.model import OperationRecord, OperationState

    body: dict[str, Plain] = {"id": number, "wait_s": 10.0}
    record = ask(session, "vm.operation.cancel", body, OperationRecord)
    if record.state is not OperationState.CANCELLED:
        raise CtlError(f"operation {number} is {record.state.value}; {VM} could not end it")
    click.echo(f"operation {number} is cancelled")
