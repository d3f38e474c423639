"""novacronctl vm image: disks of guests as files on the node."""

from __future__ import annotations

from pathlib import Path

import click

from protocol.records import Plain
from services.ctl import output
from services.ctl.errors import CtlError, UsageError
from services.ctl.session import Session, examples, node_options
from services.ctl.vm_orders import Size, ask, give_order, order_options

_IMAGES = "/var/lib/novacron/images"


@click.group("image")
@node_options
def image() -> None:
    """Images on the node, qcow2 or raw; nothing is ever overwritten.

    Paths are the node's, inside its directories for images.
    """


@image.command("info", epilog=examples(f"novacronctl vm image info {_IMAGES}/web1.qcow2"))
@node_options
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_obj
def info(session: Session, path: str, *, as_json: bool) -> None:
    """Say what the image PATH is, and whether it is what its name says."""
    from services.vm.operations.storage_model import ImageRecord

    found = ask(session, "image.info", {"path": path}, ImageRecord)
    if as_json:
        from services.ctl.schema import to_json

        output.show_json(to_json(found), indent=2)
        return
    from services.ctl.vm_render import render_image

    output.show(render_image(found))


@image.command(
    "create",
    epilog=examples(
        f"novacronctl vm image create {_IMAGES}/data.qcow2 20G",
        f"novacronctl vm image create {_IMAGES}/web2.qcow2 --backing {_IMAGES}/debian.qcow2",
    ),
)
@node_options
@click.argument("path")
@click.argument("size", type=Size(), required=False)
@click.option("--backing", default="", metavar="IMAGE", help="Make an overlay of this image.")
@order_options
@click.pass_obj
def create(
    session: Session, path: str, size: int | None, *, backing: str, is_waiting: bool, as_json: bool
) -> None:
    """Make an empty image of SIZE, or an overlay."""
    if size is None and not backing:
        raise UsageError("give a size, or --backing for an overlay of the same size")
    body: dict[str, Plain] = {"path": path, "backing": backing, "format": _format(path)}
    if size is not None:
        body["size_bytes"] = size
    give_order(session, "image.create", body, is_waiting=is_waiting, as_json=as_json)


def _copying(name: str, text: str, *lines: str) -> click.Command:
    """A command that copies an image; they differ in what an operator means by it."""

    @image.command(name, help=text, epilog=examples(*lines))
    @node_options
    @click.argument("source")
    @click.argument("target")
    @click.option("--compress", is_flag=True, help="Compress a qcow2 target.")
    @order_options
    @click.pass_obj
    def copy(
        session: Session,
        source: str,
        target: str,
        *,
        compress: bool,
        is_waiting: bool,
        as_json: bool,
    ) -> None:
        body = {"source": source, "target": target, "compress": compress}
        give_order(session, "image.copy", body, is_waiting=is_waiting, as_json=as_json)

    return copy


convert = _copying(
    "convert",
    "Copy SOURCE to TARGET in the format that TARGET's name says; zeros become holes.",
    f"novacronctl vm image convert {_IMAGES}/a.raw {_IMAGES}/a.qcow2",
)
clone = _copying(
    "clone",
    "Copy SOURCE, with all that it is an overlay of, to a TARGET that stands alone.",
    f"novacronctl vm image clone {_IMAGES}/web1.qcow2 {_IMAGES}/web2.qcow2",
)
take = _copying(
    "import",
    "Check SOURCE, from elsewhere in the node's image directories, and make TARGET of it.",
    f"novacronctl vm image import {_IMAGES}/incoming/debian.qcow2 {_IMAGES}/debian.qcow2",
)
give = _copying(
    "export",
    "Make TARGET, whole and without holes in its chain, of SOURCE.",
    f"novacronctl vm image export --compress {_IMAGES}/web1.qcow2 {_IMAGES}/out/web1.qcow2",
)


@image.command(
    "seed",
    epilog=examples(
        f"novacronctl vm image seed {_IMAGES}/web1-seed.iso --user-data user.yaml",
        f"novacronctl vm image seed {_IMAGES}/web1-seed.iso --user-data user.yaml"
        " --meta-data meta.yaml --network-config net.yaml",
    ),
)
@node_options
@click.argument("path")
@click.option("--user-data", "user", required=True, type=click.Path(path_type=Path))
@click.option("--meta-data", "meta", type=click.Path(path_type=Path))
@click.option("--network-config", "network", type=click.Path(path_type=Path))
@order_options
@click.pass_obj
def seed(
    session: Session,
    path: str,
    *,
    user: Path,
    meta: Path | None,
    network: Path | None,
    is_waiting: bool,
    as_json: bool,
) -> None:
    """Make the cloud-init seed PATH on the node from files here."""
    body = {
        "path": path,
        "user_data": _read(user),
        "meta_data": _read(meta) if meta else "",
        "network_config": _read(network) if network else "",
    }
    give_order(session, "image.seed", body, is_waiting=is_waiting, as_json=as_json)


def _format(path: str) -> str:
    return "qcow2" if path.lower().endswith((".qcow2", ".qcow")) else "raw"


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as exc:
        raise UsageError(f"{path} is not UTF-8 text") from exc
    except OSError as exc:
        raise CtlError(f"can't read {path}: {exc.strerror}") from exc
