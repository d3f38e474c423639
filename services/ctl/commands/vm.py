"""novacronctl vm: the machines of the node, what they should be, and orders to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

from services.ctl import output
from services.ctl.commands.vm_table import ORDERS, find_order
from services.ctl.errors import CtlError, Exit, UsageError
from services.ctl.session import Session, examples, node_options

if TYPE_CHECKING:
    from protocol.records import Plain
    from services.vm.documents.records import ApplyReply, PlanReply

R = TypeVar("R")

VM = "core/vm"
# The waits of a few dozen starts; each step has its own, shorter deadline.
_APPLY_TIMEOUT_S = 900.0
_ASK_TIMEOUT_S = 60.0


class _Machines(click.Group):
    """The commands here, and the orders, each imported when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Documents first, then orders."""
        own = list(self.commands)
        return own + [name for name in ORDERS if name not in own]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command of either."""
        return super().get_command(ctx, cmd_name) or find_order(cmd_name)


@click.group("vm", cls=_Machines)
@node_options
def command() -> None:
    """The virtual machines of the node.

    A machine is described by a document, a YAML or JSON file, see docs/vm.md.
    """


@command.command("list", epilog=examples("novacronctl vm list", "novacronctl vm list --json"))
@node_options
@click.option("--json", "as_json", is_flag=True, help="Print domains and documents as JSON.")
@click.pass_obj
def list_machines(session: Session, *, as_json: bool) -> None:
    """List the machines: their state, and the documents for them."""
    from services.vm.documents.records import DocumentList
    from services.vm.model import DomainList

    domains = _ask(session, "vm.list", {}, DomainList)
    documents = _ask(session, "vm.documents", {}, DocumentList)
    if as_json:
        from services.ctl.schema import to_json

        output.show_json({"domains": to_json(domains), "documents": to_json(documents)}, indent=2)
        return
    from services.ctl.vm_documents import render_list

    output.show(render_list(domains, documents, width=output.width()))


@command.command(
    "show",
    epilog=examples(
        "novacronctl vm show web-1",
        "novacronctl vm show --document web-1 > web-1.yaml",
        "novacronctl vm show --json web-1 | jq .stored.version",
    ),
)
@node_options
@click.argument("name")
@click.option("--document", "as_document", is_flag=True, help="Print its document alone, as YAML.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known as JSON.")
@click.pass_obj
def show(session: Session, name: str, *, as_document: bool, as_json: bool) -> None:
    """Show one machine: what is, what should be, and what an apply would do.

    For a machine without a document --document prints the one that adopting it would keep.
    """
    from services.vm.documents.records import VmView

    view = _ask(session, "vm.get", {"name": name}, VmView)
    if as_json:
        _show_json(view)
        return
    if as_document:
        from services.vm.documents.parse import render_document

        document = view.found if view.stored is None else view.stored.document
        if document is None:
            raise CtlError(f"{name} can't be said by a document: {view.fault}")
        click.echo(render_document(document), nl=False)
        return
    from services.ctl.vm_documents import render_view

    output.show(render_view(view))


@command.command(
    "plan",
    epilog=examples(
        "novacronctl vm plan web-1.yaml",
        "novacronctl vm plan              (all documents of the node)",
        "novacronctl vm plan --restart --json *.yaml",
    ),
)
@node_options
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option("--name", "names", multiple=True, help="Look at this machine; repeatable.")
@click.option("--restart", is_flag=True, help="Restart guests whose new definition needs it.")
@click.option("--replace", is_flag=True, help="Redefine although disks or parts are lost to it.")
@click.option("--adopt", is_flag=True, help="Take over domains of somebody else.")
@click.option("--undefine", is_flag=True, help="Undefine our domains whose document is gone.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.pass_obj
def plan(
    session: Session,
    /,
    files: tuple[str, ...],
    names: tuple[str, ...],
    *,
    as_json: bool,
    **allowed: bool,
) -> None:
    """Show what applying the FILEs would do; nothing is done or kept."""
    body = {**_given(files, names), "allowed": dict(allowed)}
    _show_plan(_plan(session, body), as_json=as_json)


@command.command(
    "apply",
    epilog=examples(
        "novacronctl vm apply web-1.yaml db-1.yaml",
        "novacronctl vm apply --dry-run web-1.yaml",
        "novacronctl vm apply --expect web-1=3 web-1.yaml   (only if nobody changed it since)",
        "novacronctl vm apply --all                         (what is kept, once more)",
    ),
)
@node_options
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option("--name", "names", multiple=True, help="Apply its kept document; repeatable.")
@click.option("--all", "is_all", is_flag=True, help="Apply all documents that are kept.")
@click.option("--restart", is_flag=True, help="Restart guests whose new definition needs it.")
@click.option("--replace", is_flag=True, help="Redefine although disks or parts are lost to it.")
@click.option("--adopt", is_flag=True, help="Take over domains of somebody else.")
@click.option("--undefine", is_flag=True, help="Undefine our domains whose document is gone.")
@click.option(
    "--expect",
    "expected",
    multiple=True,
    metavar="NAME=VERSION",
    help="Refuse unless the kept document has this version, 0 for none; repeatable.",
)
@click.option("--dry-run", "is_dry", is_flag=True, help="Show the plan and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.pass_obj
def apply(
    session: Session,
    /,
    files: tuple[str, ...],
    names: tuple[str, ...],
    *,
    is_all: bool,
    expected: tuple[str, ...],
    is_dry: bool,
    as_json: bool,
    **allowed: bool,
) -> None:
    """Keep the documents in the FILEs and bring their machines to life.

    No disk is ever deleted, no running guest stopped unless its document says 'power: off' or
    --restart is given.
    """
    if not (files or names or is_all):
        raise UsageError("name files, or --name or --all for documents that are kept")
    if is_all and (files or names):
        raise UsageError("--all goes without files and names")
    body = {**_given(files, names), "allowed": dict(allowed)}
    if is_dry:
        _show_plan(_plan(session, body), as_json=as_json)
        return
    _change(session, "vm.apply", {**body, "expected": _versions(expected)}, as_json=as_json)


@command.command(
    "define",
    epilog=examples(
        "novacronctl vm define web-1.yaml", "novacronctl vm define --dry-run web-1.yaml"
    ),
)
@node_options
@click.argument("file", metavar="FILE")
@click.option("--replace", is_flag=True, help="Redefine although disks or parts are lost to it.")
@click.option("--expect", "expected", multiple=True, metavar="NAME=VERSION", help="As for apply.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Show the plan and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.pass_obj
def define(
    session: Session,
    file: str,
    *,
    replace: bool,
    expected: tuple[str, ...],
    is_dry: bool,
    as_json: bool,
) -> None:
    """Keep the documents in FILE and define their domains; nothing is started or stopped."""
    body = {**_given((file,), ()), "allowed": {"replace": replace}}
    if is_dry:
        _show_plan(_plan(session, body), as_json=as_json)
        return
    _change(session, "vm.define", {**body, "expected": _versions(expected)}, as_json=as_json)


@command.command(
    "undefine",
    epilog=examples("novacronctl vm undefine web-1", "novacronctl vm undefine --dry-run web-1"),
)
@node_options
@click.argument("name")
@click.option("--dry-run", "is_dry", is_flag=True, help="Show the machine and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.pass_obj
def undefine(session: Session, name: str, *, is_dry: bool, as_json: bool) -> None:
    """Remove the document and the domain of a stopped machine; its disks stay."""
    _act(session, "vm.undefine", name, is_dry=is_dry, as_json=as_json)


@command.command(
    "adopt", epilog=examples("novacronctl vm adopt old-1", "novacronctl vm adopt --dry-run old-1")
)
@node_options
@click.argument("name")
@click.option("--dry-run", "is_dry", is_flag=True, help="Show the document for it and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.pass_obj
def adopt(session: Session, name: str, *, is_dry: bool, as_json: bool) -> None:
    """Make a document for an existing domain; the domain gets our mark and no other change."""
    _act(session, "vm.adopt", name, is_dry=is_dry, as_json=as_json)


def _act(session: Session, method: str, name: str, *, is_dry: bool, as_json: bool) -> None:
    if not is_dry:
        _change(session, method, {"name": name}, as_json=as_json)
        return
    from services.ctl.vm_documents import render_view
    from services.vm.documents.records import VmView

    view = _ask(session, "vm.get", {"name": name}, VmView)
    if as_json:
        _show_json(view)
        return
    output.show(render_view(view))


def _given(files: tuple[str, ...], names: tuple[str, ...]) -> dict[str, Plain]:
    from protocol.records import to_wire
    from services.ctl.vm_documents import read_files

    return {"documents": to_wire(read_files(files)), "names": list(names)}


def _versions(texts: tuple[str, ...]) -> Plain:
    from services.ctl.vm_documents import read_versions

    return dict(read_versions(texts))


def _plan(session: Session, body: Plain) -> PlanReply:
    from services.vm.documents.records import PlanReply

    return _ask(session, "vm.plan", body, PlanReply)


def _show_plan(reply: PlanReply, *, as_json: bool) -> None:
    if as_json:
        _show_json(reply)
        return
    from services.ctl.vm_documents import render_plan

    output.show(render_plan(reply))


def _change(session: Session, method: str, body: Plain, *, as_json: bool) -> None:
    """Have it done; ends with 1 where a step was not."""
    from services.vm.documents.records import ApplyReply

    reply: ApplyReply = _ask(session, method, body, ApplyReply, timeout_s=_APPLY_TIMEOUT_S)
    if as_json:
        _show_json(reply)
    else:
        from services.ctl.vm_documents import render_applied

        output.show(render_applied(reply))
    if not reply.is_done:
        click.get_current_context().exit(Exit.FAILED)


def _ask(
    session: Session,
    method: str,
    body: Plain,
    record: type[R],
    *,
    timeout_s: float = _ASK_TIMEOUT_S,
) -> R:
    """Call the VM service.

    Raises:
        UsageError: it says that the request means nothing.
        CtlError: its answer is not understood.
    """
    from protocol.errors import RemoteCallError, RemoteProtocolError
    from protocol.records import from_wire

    client = session.client(timeout_s=timeout_s)
    try:
        reply = client.call(VM, method, body)
    except RemoteCallError as exc:
        if exc.remote_code in (RemoteProtocolError.code, "vm.document_invalid"):
            raise UsageError(str(exc)) from exc
        raise
    finally:
        client.close()
    try:
        return from_wire(record, reply)
    except RemoteProtocolError as exc:
        raise CtlError(f"the VM service's answer is not understood: {exc}") from exc


def _show_json(found: object) -> None:
    from services.ctl.schema import to_json

    output.show_json(to_json(found), indent=2)
