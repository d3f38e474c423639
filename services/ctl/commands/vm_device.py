"""novacronctl vm: what a running guest has, changed."""

from __future__ import annotations

import click

from protocol.records import Plain
from services.ctl.errors import UsageError
from services.ctl.session import Session, examples, node_options
from services.ctl.vm_orders import Size, give_order, order_options


class _DiskSize(click.ParamType[tuple[str, int]]):
    """``vda=20G``."""

    name = "target=size"

    def convert(
        self, value: str | tuple[str, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """The disk's target and its new size in bytes."""
        if isinstance(value, tuple):
            return value
        target, equals, size = value.partition("=")
        if not (target and equals):
            self.fail(f"{value!r} is no disk and size; expected vda=20G", param, ctx)
        return target, Size().convert(size, param, ctx)


@click.command(
    "resize",
    epilog=examples(
        "novacronctl vm resize web1 --memory 4G --vcpus 2",
        "novacronctl vm resize web1 --disk vda=40G",
    ),
)
@node_options
@click.argument("name")
@click.option("--memory", type=Size(), metavar="SIZE", help="Within its maximum.")
@click.option("--vcpus", type=click.IntRange(min=1), metavar="N", help="Within its maximum.")
@click.option("--disk", type=_DiskSize(), metavar="TARGET=SIZE", help="A disk never shrinks.")
@order_options
@click.pass_obj
def resize(
    session: Session,
    name: str,
    *,
    memory: int | None,
    vcpus: int | None,
    disk: tuple[str, int] | None,
    is_waiting: bool,
    as_json: bool,
) -> None:
    """Change memory, processors or a disk of the guest NAME while it runs."""
    body: dict[str, Plain] = {"domain": name}
    if memory is not None:
        body["memory_bytes"] = memory
    if vcpus is not None:
        body["vcpus"] = vcpus
    if disk is not None:
        body["disk"], body["disk_bytes"] = disk
    if len(body) == 1:
        raise UsageError("nothing to resize: give --memory, --vcpus or --disk")
    give_order(session, "vm.resize", body, is_waiting=is_waiting, as_json=as_json)


@click.command(
    "attach",
    epilog=examples(
        "novacronctl vm attach web1 --disk /var/lib/novacron/images/data.qcow2",
        "novacronctl vm attach web1 --disk /var/lib/novacron/images/seed.iso --read-only",
        "novacronctl vm attach web1 --bridge novacron0",
        "novacronctl vm attach web1 --network default --mac 52:54:00:12:34:56",
    ),
)
@node_options
@click.argument("name")
@click.option("--disk", metavar="FILE", help="An image on the node.")
@click.option("--bridge", metavar="NAME", help="Or an interface on a bridge.")
@click.option("--network", metavar="NAME", help="Or one on a network of libvirt's.")
@click.option("--target", default="", help="Of the disk, such as vdb (default: the next).")
@click.option("--bus", default="virtio", show_default=True, help="Of the disk.")
@click.option("--read-only", "is_readonly", is_flag=True, help="The guest can't write the disk.")
@click.option("--mac", default="", help="Of the interface (default: one that follows from NAME).")
@click.option("--model", default="virtio", show_default=True, help="Of the interface.")
@order_options
@click.pass_obj
def attach(
    session: Session,
    name: str,
    *,
    disk: str | None,
    bridge: str | None,
    network: str | None,
    target: str,
    bus: str,
    is_readonly: bool,
    mac: str,
    model: str,
    is_waiting: bool,
    as_json: bool,
) -> None:
    """Give the guest NAME a disk or an interface, as it runs and for its next start."""
    if sum(bool(item) for item in (disk, bridge, network)) != 1:
        raise UsageError("give one of --disk, --bridge and --network")
    body: dict[str, Plain] = {"domain": name}
    if disk:
        body.update(file=disk, target=target, bus=bus, is_readonly=is_readonly)
        method = "vm.disk.attach"
    else:
        body.update(bridge=bridge or "", network=network or "", mac=mac, interface_model=model)
        method = "vm.interface.attach"
    give_order(session, method, body, is_waiting=is_waiting, as_json=as_json)


@click.command(
    "detach",
    epilog=examples(
        "novacronctl vm detach web1 vdb", "novacronctl vm detach web1 52:54:00:12:34:56"
    ),
)
@node_options
@click.argument("name")
@click.argument("device")
@click.option(
    "--within",
    "within_s",
    type=click.FloatRange(min=0.1, max=600),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the guest may take to let go.",
)
@order_options
@click.pass_obj
def detach(
    session: Session, name: str, device: str, *, within_s: float, is_waiting: bool, as_json: bool
) -> None:
    """Take DEVICE from the guest NAME: a disk by target or file, an interface by MAC."""
    body: dict[str, Plain] = {"domain": name, "device": device, "within_s": within_s}
    give_order(session, "vm.detach", body, is_waiting=is_waiting, as_json=as_json)
