"""novacronctl audit: who did what, proven."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from protocol.records import Plain, to_wire
from services.ctl import output
from services.ctl.auditing import paired, render, render_progress, render_report
from services.ctl.client import Client
from services.ctl.errors import CtlError, DeniedError, Exit, UsageError
from services.ctl.moments import Moment
from services.ctl.schema import to_json
from services.ctl.session import Session, examples, node_options
from services.security.model import (
    AcceptRequest,
    ExportFormat,
    ExportPage,
    ExportRequest,
    RecordFilter,
    RecordsPage,
    RecordsRequest,
    VerifyReport,
    VerifyRequest,
)

F = TypeVar("F", bound=Callable[..., Any])  # Any: click's commands have any parameters
R = TypeVar("R")

SECURITY = "security"
# One call verifies for most of this time, and progress is shown between calls.
_VERIFY_CALL_S = 3.0
_EXPORT_CALL_S = 5.0
# Ten million records.
_FILES_CALL_S = 600.0
_WAIT_S = 10.0
_RETRY_S = 1.0
_LINES_DEFAULT = 20
_LINES_MAX = 500


@click.group("audit")
@node_options
def command() -> None:
    """Read, export and verify the node's record of what was done, by whom, and how it ended."""


def _filters(given: F) -> F:
    for option in reversed(
        (
            click.option(
                "--actor", default="", metavar="WHO", help="Only by these; * is any text."
            ),
            click.option("--action", default="", metavar="WHAT", help="Only such, as 'call:vm-*'."),
            click.option("--subject", default="", metavar="NAME", help="Only done to these."),
            click.option(
                "--outcome",
                type=click.Choice(("requested", "success", "failure", "denied")),
                help="Only what ended so.",
            ),
            click.option("--from", "from_s", type=Moment(), metavar="WHEN", help="From then on."),
            click.option("--to", "to_s", type=Moment(), metavar="WHEN", help="Before then."),
        )
    ):
        given = option(given)
    return given


@command.command(
    "verify",
    epilog=examples(
        "novacronctl audit verify",
        "novacronctl audit verify --first 5000 --last 6000 --json",
        "novacronctl audit verify --file /var/lib/novacron/security",
        "novacronctl audit verify --file audit-2026.jsonl --public-key node-1.keys",
    ),
)
@node_options
@click.option("--first", type=click.IntRange(min=1), metavar="N", help="Begin with record N.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="End with record N.")
@click.option("--files", is_flag=True, help="Let the node verify its own files too, as a whole.")
@click.option(
    "--file",
    type=click.Path(path_type=Path, exists=True),
    help="Verify audit files or an export, without the node.",
)
@click.option(
    "--checkpoints",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="With --file: signed checkpoints from another place.",
)
@click.option(
    "--public-key", metavar="KEY", help="With --file: of the node; hexadecimal or a file."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.pass_context
def verify(
    context: click.Context,
    *,
    first: int | None,
    last: int | None,
    files: bool,
    file: Path | None,
    checkpoints: Path | None,
    public_key: str | None,
    as_json: bool,
) -> None:
    """Find any record that was edited, removed, moved or written anew, and name the first one.

    The running node verifies its database against its signing key and its own files; with --file
    the files are verified by themselves. Exits with 1 when a record is bad.
    """
    if file is None:
        if checkpoints is not None or public_key is not None:
            raise UsageError("--checkpoints and --public-key go with --file")
        if first is not None and last is not None and first > last:
            raise UsageError(f"record {first} is after record {last}")
        report = _verify_online(context.obj, first or 1, last)
        if files and report.first_bad is None:
            report = _verify_files(context.obj)
    else:
        if files:
            raise UsageError("--files asks the node, and --file does without it: choose one")
        if first is not None or last is not None:
            raise UsageError("files are verified as a whole: leave out --first and --last")
        from services.ctl import auditfiles

        report = auditfiles.verify(
            file, public_key=public_key, checkpoints=checkpoints, progress=_Progress().show_share
        )
        _Progress.clear()
    if as_json:
        output.show_json(to_json(report), indent=2)
    else:
        output.show(render_report(report, is_offline=file is not None))
    if report.first_bad is not None:
        context.exit(Exit.FAILED)


@command.command(
    "tail",
    epilog=examples(
        "novacronctl audit tail",
        "novacronctl audit tail -f --actor 'operator/*'",
        "novacronctl audit tail -n 100 --outcome denied --from 2d --json",
    ),
)
@node_options
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0, max=_LINES_MAX),
    default=_LINES_DEFAULT,
    metavar="N",
    help=f"The last N records (default {_LINES_DEFAULT}).",
)
@_filters
@click.option("--json", "as_json", is_flag=True, help="Print each record as a JSON line.")
@click.pass_obj
def tail(
    session: Session, /, *, follow: bool, lines: int, as_json: bool, **wanted: Any
) -> None:  # Any: click's
    """Show the newest records; a request and how it ended are one line.

    With --follow it goes on, across a restart of the node, until Ctrl-C.
    """
    chosen = _filter(wanted)
    client = session.client()
    try:
        page = _ask(
            client, RecordsPage, "audit.tail", RecordsRequest(limit=max(1, lines), filter=chosen)
        )
        _show(page.records if lines else (), as_json=as_json)
        after = page.after
        while follow:
            request = RecordsRequest(after=after, limit=_LINES_MAX, wait_s=_WAIT_S, filter=chosen)
            try:
                page = _ask(client, RecordsPage, "audit.tail", request, _WAIT_S + 5.0)
            except DeniedError:
                raise
            except CtlError as exc:
                output.note(f"{exc}; waiting for it")
                client.close()
                time.sleep(_RETRY_S)
                continue
            _show(page.records, as_json=as_json)
            after = page.after
    except KeyboardInterrupt:
        if not follow:
            raise
    finally:
        client.close()


@command.command(
    "export",
    epilog=examples(
        "novacronctl audit export audit.jsonl",
        "novacronctl audit export --from 2026-11-01 --to 2026-12-01 --format csv november.csv",
        "novacronctl audit export - --actor operator/alice | jq .action",
    ),
)
@node_options
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--format",
    "form",
    type=click.Choice([form.value for form in ExportFormat]),
    default="jsonl",
    show_default=True,
    help="JSON lines, or comma-separated values.",
)
@_filters
@click.pass_obj
def export(session: Session, /, file: Path, *, form: str, **wanted: Any) -> None:  # Any: click's
    """Write records to FILE, or to standard output for '-', with a statement signed by the node.

    The statement is the last line of JSON lines, and for CSV the file FILE.manifest.json;
    'novacronctl audit verify --file FILE' checks it. FILE must not exist.
    """
    request = ExportRequest(format=ExportFormat(form), filter=_filter(wanted))
    client = session.client(timeout_s=_EXPORT_CALL_S)
    try:
        if str(file) == "-":
            page = _export(client, request, sys.stdout)
        else:
            page = _export_to(client, request, file)
    finally:
        client.close()
    output.note(f"{page.records:,} records exported, signed by {_key_of(page)}")


@command.command(
    "accept",
    epilog=examples(
        "novacronctl audit accept --reason 'database restored from the backup of 3 May'"
    ),
)
@node_options
@click.option("--reason", required=True, metavar="TEXT", help="Is recorded, with who said so.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def accept(session: Session, *, reason: str, yes: bool) -> None:
    """Verify only what follows from now on: what is missing or bad before is known, says REASON.

    For a database that was restored or lost. The records up to now are dropped like old ones, so
    export them first where they are of use.
    """
    if not yes and not click.confirm("Give up verifying, and keeping, all records up to now?"):
        raise CtlError("nothing was changed")
    client = session.client()
    try:
        reply = client.call(SECURITY, "audit.accept", to_wire(AcceptRequest(reason=reason)))
    finally:
        client.close()
    click.echo(f"verification begins after record {reply['anchor']:,}")


@command.command("key", epilog=examples("novacronctl audit key > node-1.keys"))
@node_options
@click.pass_obj
def key(session: Session) -> None:
    """Print the node's public key, for a verification elsewhere."""
    client = session.client()
    try:
        status = client.call(SECURITY, "security.status")
    finally:
        client.close()
    audit = status.get("audit", {})
    output.show_json({"key_id": audit.get("key_id"), "public_key": audit.get("public_key")})


class _Progress:
    """How far a verification is, on a terminal's standard error."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        self._is_drawing = sys.stderr.isatty()

    def show_share(self, done: int, total: int) -> None:
        """Draw it."""
        if self._is_drawing and total:
            text = render_progress(done / total, time.monotonic() - self._started_s)
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)

    @staticmethod
    def clear() -> None:
        """Remove it."""
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", nl=False, err=True)


def _verify_online(session: Session, first: int, last: int | None) -> VerifyReport:
    client = session.client(timeout_s=_VERIFY_CALL_S)
    progress = _Progress()
    records, at = 0, first
    try:
        while True:
            request = VerifyRequest(first=at, last=last)
            report = _ask(client, VerifyReport, "audit.verify", request)
            records += report.records
            if report.next is None or report.first_bad is not None:
                break
            begin = max(first, report.anchor + 1)
            end = report.head if last is None else min(last, report.head)
            progress.show_share(report.next - begin, max(1, end - begin + 1))
            at = report.next
    finally:
        client.close()
        _Progress.clear()
    return replace(report, records=records)


def _verify_files(session: Session) -> VerifyReport:
    """Have the node verify its files, in one call that takes as long as they are large."""
    client = session.client(timeout_s=_FILES_CALL_S)
    try:
        report = _ask(client, VerifyReport, "audit.verify", VerifyRequest(files=True))
    finally:
        client.close()
    if (bad := report.first_bad) is None:
        return report
    return replace(report, first_bad=replace(bad, reason=f"{bad.reason} (in the node's files)"))


def _export_to(client: Client, request: ExportRequest, file: Path) -> ExportPage:
    from services.ctl.auditfiles import MANIFEST_SUFFIX

    manifest = file.with_name(file.name + MANIFEST_SUFFIX)
    try:
        with _create(file) as opened:
            try:
                page = _export(client, request, opened)
            except BaseException:
                file.unlink(missing_ok=True)  # what is there is no export, and looks like one
                raise
        if request.format is ExportFormat.CSV:
            with _create(manifest) as opened:
                opened.write(_manifest_line(page))
    except FileExistsError as exc:
        raise CtlError(f"{exc.filename} is there already") from exc
    except OSError as exc:
        raise CtlError(f"can't write {exc.filename or file}: {exc.strerror}") from exc
    return page


def _create(path: Path) -> IO[str]:
    """A new file that only its owner may read, for it tells who did what."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8", newline="")


def _export(client: Client, request: ExportRequest, target: IO[str]) -> ExportPage:
    page = _ask(client, ExportPage, "audit.export", request)
    while True:
        target.write(page.text)
        if not page.export:
            break
        page = _ask(client, ExportPage, "audit.export", ExportRequest(export=page.export))
    if request.format is ExportFormat.JSONL:
        target.write(_manifest_line(page))
    target.flush()
    return page


def _manifest_line(page: ExportPage) -> str:
    return json.dumps({"manifest": page.manifest}, separators=(",", ":")) + "\n"


def _key_of(page: ExportPage) -> str:
    return str((page.manifest or {}).get("key_id"))


def _show(records: Sequence[dict[str, Plain]], *, as_json: bool) -> None:
    if as_json:
        for record in records:
            output.show_json(record)
    else:
        output.show(render(entry) for entry in paired(records))


def _filter(wanted: dict[str, Any]) -> RecordFilter:  # Any: click's
    from_s, to_s = wanted["from_s"], wanted["to_s"]
    return RecordFilter(
        actor=wanted["actor"],
        action=wanted["action"],
        subject=wanted["subject"],
        outcome=wanted["outcome"] or "",
        from_us=None if from_s is None else round(from_s * 1e6),
        to_us=None if to_s is None else round(to_s * 1e6),
    )


def _ask(
    client: Client, record: type[R], method: str, request: object, timeout_s: float | None = None
) -> R:
    return client.ask(record, SECURITY, method, to_wire(request), timeout_s)
