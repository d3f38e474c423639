"""novacronctl vm: a running guest moved to another node."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from services.ctl import output
from services.ctl.errors import CtlError
from services.ctl.session import Session, examples, node_options
from services.ctl.vm_orders import ASK_TIMEOUT_S, Size, ask, ask_on, order_options, show, watch

if TYPE_CHECKING:
    from protocol.records import Plain
    from services.vm.operations.model import OperationRecord

_SECONDS_MAX = 7 * 86400


@click.command(
    "migrate",
    epilog=examples(
        "novacronctl vm migrate web1 node-002",
        "novacronctl vm migrate web1 node-002 --copy-storage --bandwidth 100M",
        "novacronctl vm migrate web1 node-002 --within 600 --if-late finish --auto-converge",
    ),
)
@node_options
@click.argument("name")
@click.argument("node")
@click.option("--bandwidth", type=Size(), metavar="SIZE", help="At most so much per second.")
@click.option(
    "--downtime",
    "downtime_ms",
    type=click.IntRange(1, 60_000),
    default=500,
    show_default=True,
    metavar="MS",
    help="How long it may stand still at the end, at most.",
)
@click.option("--auto-converge", is_flag=True, help="Slow its processors down if it must be.")
@click.option(
    "--within",
    "timeout_s",
    type=click.FloatRange(0, _SECONDS_MAX),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="For the copying; 0 = no limit.",
)
@click.option(
    "--if-late",
    "on_timeout",
    type=click.Choice(["cancel", "finish"]),
    default="cancel",
    show_default=True,
    help="It stays here, or stands still until the rest is over.",
)
@click.option("--copy-storage", is_flag=True, help="Copy the disks that the nodes do not share.")
@click.option("--onto-existing", is_flag=True, help="Write over disks that are there already.")
@click.option("--keep-source", is_flag=True, help="Keep its definition on this node, too.")
@click.option("--compress", is_flag=True, help="Send differences of pages (XBZRLE).")
@click.option(
    "--connections",
    type=click.IntRange(0, 16),
    default=0,
    metavar="N",
    help="Send the memory over N connections.",
)
@click.option("--detach", is_flag=True, help="The same as --no-wait.")
@order_options
@click.pass_obj
def migrate(
    session: Session,
    /,
    name: str,
    node: str,
    *,
    bandwidth: int | None,
    copy_storage: bool,
    keep_source: bool,
    compress: bool,
    detach: bool,
    is_waiting: bool,
    as_json: bool,
    **wanted: Plain,
) -> None:
    """Move the running guest NAME to NODE while it runs.

    Whatever goes wrong, it runs on exactly one of the two nodes. Ctrl-C asks whether to end the
    migration; a second one leaves it to itself.
    """
    from services.vm.operations.model import OperationRecord

    body = {
        "domain": name,
        "node": node,
        "bandwidth_bytes_s": bandwidth or 0,
        "storage": "copy" if copy_storage else "shared",
        "keeps_source": keep_source,
        "compression": "xbzrle" if compress else "none",
        **wanted,
    }
    client = session.client(timeout_s=ASK_TIMEOUT_S)
    try:
        record = ask_on(client, "vm.migrate", body, OperationRecord)
    finally:
        client.close()
    if is_waiting and not detach:
        record = _follow(session, record)
    show(record, as_json=as_json)


@click.command(
    "migration",
    epilog=examples(
        "novacronctl vm migration web1",
        "novacronctl vm migration web1 --bandwidth 20M",
        "novacronctl vm migration web1 --downtime 2000",
    ),
)
@node_options
@click.argument("name")
@click.option("--bandwidth", type=Size(), metavar="SIZE", help="Limit it; 0 = no limit.")
@click.option(
    "--downtime",
    "downtime_ms",
    type=click.IntRange(1, 60_000),
    metavar="MS",
    help="Let the guest stand still for so long at the end, at most.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the operation as JSON.")
@click.pass_obj
def migration(
    session: Session, name: str, *, bandwidth: int | None, downtime_ms: int | None, as_json: bool
) -> None:
    """Show the last migration of the guest NAME from this node, or change its limits."""
    from services.vm.migration.model import Limits
    from services.vm.operations.model import OperationList

    if bandwidth is not None or downtime_ms is not None:
        body: dict[str, Plain] = {"domain": name}
        if bandwidth is not None:
            body["bandwidth_bytes_s"] = bandwidth
        if downtime_ms is not None:
            body["downtime_ms"] = downtime_ms
        ask(session, "vm.migration.limit", body, Limits)
    found = ask(session, "vm.operations", None, OperationList)
    mine = [
        record
        for record in found.operations
        if record.method == "vm.migrate" and name in (record.subject, record.uuid)
    ]
    if not mine:
        raise CtlError(f"{name} has not been moved from this node since the VM service started")
    _show_migration(mine[-1], as_json=as_json)


def _show_migration(record: OperationRecord, *, as_json: bool) -> None:
    from services.ctl.styled import line, printable
    from services.ctl.vm_migration import figures_text, result_text

    if as_json:
        from services.ctl.schema import to_json

        output.show_json(to_json(record), indent=2)
        return
    said = [
        record.state.value,
        *([record.step] if not record.state.is_final else []),
        record.note,
        record.error,
        result_text(record) if record.state.is_final else figures_text(record),
    ]
    text = ", ".join(printable(part) for part in said if part)
    output.show([line(f"operation {record.id}: {printable(record.subject)} {text}")])


def _follow(session: Session, record: OperationRecord) -> OperationRecord:
    """To its end. Ctrl-C asks whether to end it, and another one leaves it to itself.

    Raises:
        KeyboardInterrupt: the operator left.
    """
    from services.vm.operations.model import OperationRecord

    client = session.client(timeout_s=ASK_TIMEOUT_S)
    try:
        return watch(client, record)
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
    finally:
        client.close()
    try:
        is_ending = click.confirm("end the migration, and keep the guest here?", err=True)
    except click.Abort:
        is_ending = False
    if not is_ending:
        raise KeyboardInterrupt
    client = session.client(timeout_s=ASK_TIMEOUT_S)
    try:
        query: dict[str, Plain] = {"id": record.id}
        return watch(client, ask_on(client, "vm.operation.cancel", query, OperationRecord))
    finally:
        client.close()
