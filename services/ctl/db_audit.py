"""The record of what operators do to a database past the node: it waits in the node's spool.

These commands speak to the server themselves, with the node running or not, so no process of the
node sees them. The record is on disk before anything is done; the node's security process chains
it when it finds it, which may be at the next start.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import NovacronError
from protocol.names import person_path
from protocol.records import Plain
from services.ctl import output
from services.ctl.errors import CtlError
from supervisor.guard.spool import Note, SpoolError
from supervisor.guard.spool_writer import SpoolWriter

_WRITER = "novacronctl"


@contextlib.contextmanager
def recorded(state_dir: Path, action: str, subject: str, **fields: Plain) -> Iterator[None]:
    """Record an action before the block carries it out, and afterwards how it ended.

    Args:
        state_dir: of the node. Where none has run yet there is no audit log; that is said.
        action: such as ``db.restore``.
        subject: the database.
        fields: what else is worth knowing.

    Raises:
        CtlError: it can't be recorded, so nothing was done.
    """
    security = state_dir / "security"
    if not security.is_dir():
        output.note(f"not recorded: no node has run in {state_dir} yet")
        yield
        return
    directory = security / "spool"
    writer = SpoolWriter(directory, _WRITER)

    def write(outcome: str, *, durably: bool, **more: Plain) -> None:
        note = Note(
            time_us=time.time_ns() // 1000,
            actor=person_path(_user()),
            action=action,
            subject=subject,
            outcome=outcome,
            fields={**fields, **more},
        )
        writer.write([note], durably=durably)

    try:
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            write("requested", durably=True)
        except (OSError, SpoolError) as exc:
            raise CtlError(f"nothing was done, as it can't be recorded: {exc}") from exc
        try:
            yield
        except BaseException as exc:
            code = exc.code if isinstance(exc, NovacronError) else type(exc).__name__
            with contextlib.suppress(SpoolError):  # what went wrong is the news
                write("failure", durably=False, code=code)
            raise
        with contextlib.suppress(SpoolError):  # it is done, and was recorded as requested
            write("success", durably=False)
    finally:
        writer.close()


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"
