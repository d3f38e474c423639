"""Orders to the VM service: give one, watch it, and say what came of it."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from protocol.records import Plain
from services.ctl import output
from services.ctl.errors import CtlError, UsageError
from services.ctl.session import Session
from services.ctl.styled import Span, Tone, line, printable
from services.ctl.vm_migration import figures_text, result_text

if TYPE_CHECKING:
    from services.ctl.client import Client
    from services.vm.operations.model import OperationRecord

F = TypeVar("F", bound=Callable[..., Any])  # Any: click's commands have any parameters
R = TypeVar("R")

VM = "core/vm"
# The service looks the guest up, within its own deadline, before it answers.
ASK_TIMEOUT_S = 20.0
# How long one look at a running operation waits for news.
_NEWS_S = 10.0
_ERASE_LINE = "\r\x1b[K"
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SIZE = re.compile(r"([0-9]{1,12})([KMGT]?)(?:i?B)?", re.IGNORECASE)


class Size(click.ParamType[int]):
    """An amount such as ``512M`` or ``20GiB``; powers of 1024."""

    name = "size"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """The amount in bytes."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(value)
        if match is None:
            self.fail(f"{value!r} is no size; expected one such as 512M or 20G", param, ctx)
        return int(match[1]) << _UNITS[match[2].upper()]


def order_options(command: F) -> F:
    """``--json``, and whether to wait for the end."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the operation as JSON."),
        click.option(
            "--wait/--no-wait",
            "is_waiting",
            default=True,
            show_default=True,
            help="Wait for the end, or print the operation's number and return.",
        ),
    ):
        command = option(command)
    return command


def ask(session: Session, method: str, body: Plain, record: type[R]) -> R:
    """Call the VM service.

    Raises:
        UsageError: it says that the request means nothing.
        CtlError: its answer is not understood.
    """
    client = session.client(timeout_s=ASK_TIMEOUT_S)
    try:
        return ask_on(client, method, body, record)
    finally:
        client.close()


def ask_on(client: Client, method: str, body: Plain, record: type[R]) -> R:
    """The same, on an open client."""
    from protocol.errors import RemoteCallError, RemoteProtocolError
    from protocol.records import from_wire

    try:
        reply = client.call(VM, method, body)
    except RemoteCallError as exc:
        if exc.remote_code == RemoteProtocolError.code:
            raise UsageError(str(exc)) from exc
        raise
    try:
        return from_wire(record, reply)
    except RemoteProtocolError as exc:
        raise CtlError(f"the VM service's answer is not understood: {exc}") from exc


def give_order(
    session: Session, method: str, body: dict[str, Plain], *, is_waiting: bool, as_json: bool
) -> None:
    """Begin an operation, watch it to its end unless told otherwise, and show it.

    Raises:
        CtlError: it failed, or nobody knows what became of it.
    """
    from services.vm.operations.model import OperationRecord

    client = session.client(timeout_s=ASK_TIMEOUT_S)
    try:
        record = ask_on(client, method, body, OperationRecord)
        if is_waiting:
            record = watch(client, record)
    finally:
        client.close()
    show(record, as_json=as_json)


def watch(client: Client, record: OperationRecord) -> OperationRecord:
    """Follow an operation to its end; Ctrl-C leaves it to itself.

    Raises:
        KeyboardInterrupt: the operator left.
    """
    from services.vm.operations.model import OperationRecord

    is_drawing = sys.stderr.isatty()
    try:
        while not record.state.is_final:
            if is_drawing:
                _draw(_ERASE_LINE + progress_text(record, now_s=time.time()))
            query = {
                "id": record.id,
                "wait_s": _NEWS_S,
                "seen": record.step,
                "seen_progress": record.progress,
            }
            record = ask_on(client, "vm.operation", query, OperationRecord)
    except KeyboardInterrupt:
        output.note(
            f"\noperation {record.id} goes on; 'novacronctl vm cancel {record.id}' would end it"
        )
        raise
    finally:
        if is_drawing:
            _draw(_ERASE_LINE)
    return record


def progress_text(record: OperationRecord, *, now_s: float) -> str:
    """Where an operation is, on one line."""
    share = "" if record.progress is None else f" {100 * record.progress:.0f} %"
    step = printable(record.step) or record.state.value
    detail = figures_text(record)
    more = f", {detail}" if detail else ""
    passed_s = max(now_s - record.began_s, 0)
    return f"{printable(record.subject)}: {step}{share}, {passed_s:.0f} s{more}"


def show(record: OperationRecord, *, as_json: bool) -> None:
    """Say what came of an operation.

    Raises:
        CtlError: it failed, was cancelled, or is unknown.
    """
    from services.vm.operations.model import OperationState

    if as_json:
        from services.ctl.schema import to_json

        output.show_json(to_json(record), indent=2)
    elif not record.state.is_final:
        output.show(
            [
                line(
                    f"operation {record.id} is under way: {record.method} of ",
                    printable(record.subject),
                )
            ]
        )
    elif record.state is OperationState.DONE:
        tone = Tone.GOOD if record.changed else Tone.NOTE
        took = result_text(record)
        note = printable(record.note) + (f", {took}" if took else "")
        output.show([line(Span(note, tone))])
    if record.state is OperationState.CANCELLED:
        raise CtlError(f"operation {record.id} was cancelled")
    if record.state in (OperationState.FAILED, OperationState.UNKNOWN):
        raise CtlError(record.error)


def _draw(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
