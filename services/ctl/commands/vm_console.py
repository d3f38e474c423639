"""novacronctl vm console: a guest's serial line on this terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from services.ctl import output
from services.ctl.errors import CtlError
from services.ctl.session import Session, examples, node_options
from services.ctl.vm_orders import ASK_TIMEOUT_S, ask_on
from services.ctl.vm_typing import LEAVE_HINT, split_typed

if TYPE_CHECKING:
    from services.ctl.client import Client

# A read of the console that finds nothing for this long asks again.
_READ_WAIT_S = 10.0
_TYPED_BYTES = 4096


@click.command(
    "console",
    epilog=examples(
        "novacronctl vm console web1",
        "novacronctl vm console web1 < /dev/null     (only look)",
    ),
)
@node_options
@click.argument("name")
@click.pass_obj
def console(session: Session, name: str) -> None:
    """Attach to the serial console of the guest NAME; Ctrl-] ends it.

    One at a time: a console that somebody else has open is refused. When standard input ends, the
    console goes on and can be looked at until Ctrl-C.
    """
    from services.vm.operations.model import ConsoleOutput

    reader = session.client(timeout_s=_READ_WAIT_S + ASK_TIMEOUT_S)
    writer = session.client(timeout_s=ASK_TIMEOUT_S)
    try:
        number = ask_on(reader, "vm.console.open", {"domain": name}, ConsoleOutput).id
        output.note(f"attached to {name}; {LEAVE_HINT}")
        try:
            with _raw_terminal():
                ended = _Relay(reader, writer, number).run()
        finally:
            with contextlib.suppress(Exception):  # it may have ended by itself
                ask_on(writer, "vm.console.close", {"id": number}, ConsoleOutput)
        output.note(f"\r\ndetached from {name}{': ' + ended if ended else ''}")
    finally:
        reader.close()
        writer.close()


class _Relay:
    """Two threads: this one types, the other prints; each has a client of its own."""

    def __init__(self, reader: Client, writer: Client, number: int) -> None:
        self._reader = reader
        self._writer = writer
        self._number = number
        self._over = threading.Event()
        self._reason = ""
        self._error: BaseException | None = None

    def run(self) -> str:
        """Relay until either side ends; why the guest's did, or "" for ours.

        Raises:
            CtlError: the node does not answer any more.
        """
        printer = threading.Thread(target=self._print, name="console-printer", daemon=True)
        typer = threading.Thread(target=self._type, name="console-typer", daemon=True)
        printer.start()
        typer.start()
        while not self._over.wait(0.5):
            pass  # so that Ctrl-C is heard where the terminal is not raw
        if self._error is not None:
            raise CtlError(f"the console broke: {self._error}") from self._error
        return self._reason

    def _print(self) -> None:
        from services.vm.operations.model import ConsoleOutput

        query = {"id": self._number, "wait_s": _READ_WAIT_S}
        try:
            while not self._over.is_set():
                found = ask_on(self._reader, "vm.console.read", query, ConsoleOutput)
                if found.dropped_bytes:
                    output.note(f"\r\n[{found.dropped_bytes} bytes were lost]\r")
                sys.stdout.buffer.write(found.data)
                sys.stdout.buffer.flush()
                if found.ended:
                    self._reason = found.ended
                    break
        except Exception as exc:  # noqa: BLE001 - handed to the thread that raises it
            self._error = None if self._over.is_set() else exc
        self._over.set()

    def _type(self) -> None:
        from services.vm.operations.model import ConsoleOutput

        try:
            while typed := os.read(sys.stdin.fileno(), _TYPED_BYTES):
                data, is_leaving = split_typed(typed, is_terminal=sys.stdin.isatty())
                if data:
                    turn = {"id": self._number, "data": data}
                    ask_on(self._writer, "vm.console.write", turn, ConsoleOutput)
                if is_leaving:
                    self._over.set()
                    return
        except Exception as exc:  # noqa: BLE001 - handed to the thread that raises it
            self._error = None if self._over.is_set() else exc
            self._over.set()


@contextmanager
def _raw_terminal() -> Iterator[None]:
    """Every key goes to the guest, Ctrl-C included; the terminal is as before afterwards."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
