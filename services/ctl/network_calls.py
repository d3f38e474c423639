"""Calls of the network service, as the commands about networks and segments make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from services.ctl import output
from services.ctl.errors import UsageError

if TYPE_CHECKING:
    from protocol.records import Plain
    from services.ctl.session import Session

R = TypeVar("R")

NETWORK = "core/network"
ASK_TIMEOUT_S = 20.0


def ask_network(
    session: Session, method: str, body: Plain, record: type[R], *, timeout_s: float = ASK_TIMEOUT_S
) -> R:
    """Call the network service.

    Raises:
        UsageError: it says that the request means nothing.
        CtlError: its answer is not understood.
    """
    from protocol.errors import RemoteCallError, RemoteProtocolError

    try:
        return session.ask(record, NETWORK, method, body, timeout_s=timeout_s)
    except RemoteCallError as exc:
        if exc.remote_code == RemoteProtocolError.code:
            raise UsageError(str(exc)) from exc
        raise


def show_record(found: object) -> None:
    """Print a reply as JSON."""
    from services.ctl.schema import to_json

    output.show_json(to_json(found), indent=2)
