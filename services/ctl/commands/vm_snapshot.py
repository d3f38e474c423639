"""novacronctl vm snapshot: states of a guest, kept."""

from __future__ import annotations

import time

import click

from protocol.records import Plain
from services.ctl import output
from services.ctl.session import Session, examples, node_options
from services.ctl.vm_orders import ask, give_order, order_options


@click.group("snapshot")
@node_options
def snapshot() -> None:
    """States of a guest that are kept while it goes on.

    A snapshot freezes the files of the disks; what the guest writes from then on goes to new ones
    beside them. 'delete' writes it back, and loses nothing.
    """


@snapshot.command(
    "create",
    epilog=examples(
        "novacronctl vm snapshot create web1 before-upgrade",
        "novacronctl vm snapshot create web1 with-memory --kind memory",
        "novacronctl vm snapshot create web1 safe --kind internal",
    ),
)
@node_options
@click.argument("name")
@click.argument("snapshot_name", metavar="SNAPSHOT")
@click.option(
    "--kind",
    type=click.Choice(["disk", "memory", "internal"]),
    default="disk",
    show_default=True,
    help="memory keeps the memory too; internal keeps both in the image, to go back to.",
)
@click.option("--description", default="", help="What it is for.")
@click.option("--quiesce", is_flag=True, help="Have the guest's agent freeze its file systems.")
@order_options
@click.pass_obj
def create(
    session: Session,
    name: str,
    snapshot_name: str,
    *,
    kind: str,
    description: str,
    quiesce: bool,
    is_waiting: bool,
    as_json: bool,
) -> None:
    """Take SNAPSHOT of the guest NAME."""
    body: dict[str, Plain] = {
        "domain": name,
        "snapshot": snapshot_name,
        "kind": kind,
        "description": description,
        "quiesce": quiesce,
    }
    give_order(session, "vm.snapshot.create", body, is_waiting=is_waiting, as_json=as_json)


@snapshot.command("list", epilog=examples("novacronctl vm snapshot list web1"))
@node_options
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@click.pass_obj
def show(session: Session, name: str, *, as_json: bool) -> None:
    """Show the snapshots of the guest NAME; a star marks what it goes on from."""
    from services.vm.operations.storage_model import SnapshotList

    found = ask(session, "vm.snapshot.list", {"domain": name}, SnapshotList)
    if as_json:
        from services.ctl.schema import to_json

        output.show_json(to_json(found), indent=2)
        return
    from services.ctl.vm_render import render_snapshots

    output.show(render_snapshots(found, now_s=time.time(), width=output.width()))


@snapshot.command("revert", epilog=examples("novacronctl vm snapshot revert web1 safe"))
@node_options
@click.argument("name")
@click.argument("snapshot_name", metavar="SNAPSHOT")
@order_options
@click.pass_obj
def revert(
    session: Session, name: str, snapshot_name: str, *, is_waiting: bool, as_json: bool
) -> None:
    """Bring the guest NAME back to SNAPSHOT; what it wrote since is lost.

    libvirt before 9.9 can go back to snapshots of the kind internal alone, and says so.
    """
    body = {"domain": name, "snapshot": snapshot_name}
    give_order(session, "vm.snapshot.revert", body, is_waiting=is_waiting, as_json=as_json)


@snapshot.command("delete", epilog=examples("novacronctl vm snapshot delete web1 before-upgrade"))
@node_options
@click.argument("name")
@click.argument("snapshot_name", metavar="SNAPSHOT")
@order_options
@click.pass_obj
def delete(
    session: Session, name: str, snapshot_name: str, *, is_waiting: bool, as_json: bool
) -> None:
    """Remove SNAPSHOT of the guest NAME and keep what was written since."""
    body = {"domain": name, "snapshot": snapshot_name}
    give_order(session, "vm.snapshot.delete", body, is_waiting=is_waiting, as_json=as_json)
