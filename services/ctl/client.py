"""The way to the node: one blocking client, and its errors put into an operator's words."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from protocol import names
from protocol.errors import (
    AccessDeniedError,
    CallTimeoutError,
    PeerUnavailableError,
    RemoteProtocolError,
)
from protocol.records import Plain, from_wire
from services.ctl.errors import (
    CtlError,
    NodeHungError,
    NotRunningError,
    denied,
    is_denial,
)

if TYPE_CHECKING:
    from protocol.messages.journal import JournalPage, JournalQuery
    from protocol.messages.status import BootReport, NodeStatus
    from protocol.transports.zeromq import SyncClient

R = TypeVar("R")

# A knock on a local socket is answered by the kernel; this only bounds a full backlog.
_KNOCK_TIMEOUT_S = 1.0


class Client:
    """Calls the processes of one node; connects at the first call.

    Args:
        run_dir: the node's run directory.
        state_dir: its state directory, for messages; an operator knows it by that.
        timeout_s: how long a call waits that does not say so itself.
    """

    def __init__(
        self, run_dir: Path, *, state_dir: Path | None = None, timeout_s: float = 5.0
    ) -> None:
        self._run = run_dir
        self._state = run_dir.parent if state_dir is None else state_dir
        self._timeout_s = timeout_s
        self._transport: SyncClient | None = None

    def call(
        self, path: str, method: str, body: Plain = None, timeout_s: float | None = None
    ) -> Plain:
        """Call a method of a process of the node.

        Raises:
            NotRunningError: the node does not run.
            DeniedError: this user may not speak to it.
            NodeHungError: the root runs and does not answer.
            CtlError: the process called is not running, or its answer is not an answer.
            RemoteCallError: the method failed.
        """
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            if self._transport is None:
                self._transport = self._connect()
            return self._transport.call(path, method, body, timeout_s=wait_s)
        except AccessDeniedError as exc:
            raise denied(Path(str(exc.fields.get("file", self._run)))) from exc
        except PeerUnavailableError as exc:
            self._knock()  # the node itself may be what is missing
            raise CtlError(f"{path} is not running") from exc
        except CallTimeoutError as exc:
            self._knock()
            if path == names.ROOT:
                raise NodeHungError(
                    f"the node runs but did not answer {method} within {wait_s:g} s"
                ) from exc
            raise CtlError(f"{path} did not answer {method} within {wait_s:g} s") from exc
        except OSError as exc:
            if is_denial(exc):
                raise denied(Path(exc.filename or self._run)) from exc
            raise CtlError(f"can't reach the node: {exc}") from exc

    def ask(
        self,
        record: type[R],
        path: str,
        method: str,
        body: Plain = None,
        timeout_s: float | None = None,
    ) -> R:
        """Call a method whose reply is a record; errors as in ``call``."""
        reply = self.call(path, method, body, timeout_s)
        try:
            return from_wire(record, reply)
        except RemoteProtocolError as exc:
            raise CtlError(
                f"{path} answers {method} as another version would ({exc}):"
                " restart the node, or use the novacronctl that belongs to it"
            ) from exc

    def status(self, *, with_memory: bool = False) -> NodeStatus:
        """The state of the node; errors as in ``call``.

        Args:
            with_memory: also measure each process, which costs the node some milliseconds.
        """
        from protocol.messages.status import NodeStatus

        return self.ask(NodeStatus, names.ROOT, "status", {"memory": True} if with_memory else None)

    def boot(self) -> BootReport:
        """Where the time of the last boot went; errors as in ``call``."""
        from protocol.messages.status import BootReport

        return self.ask(BootReport, names.ROOT, "boot")

    def journal(self, query: JournalQuery) -> JournalPage:
        """A page of the node's journal; waits up to ``query.wait_s`` for something to happen."""
        from protocol.messages.journal import JournalPage
        from protocol.records import to_wire

        wait_s = query.wait_s + self._timeout_s
        return self.ask(JournalPage, names.ROOT, "journal", to_wire(query), wait_s)

    def close(self) -> None:
        """Close the connections."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _connect(self) -> SyncClient:
        from protocol.transports.person import PersonKeys
        from protocol.transports.zeromq import SyncClient

        self._knock()
        return SyncClient(self._run, keys=PersonKeys(self._run))

    def _knock(self) -> None:
        """Ask the kernel whether somebody listens: a killed node leaves its socket behind."""
        address = names.socket_path(self._run, names.ROOT)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_KNOCK_TIMEOUT_S)
            try:
                probe.connect(str(address))
            except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
                raise NotRunningError(f"no node runs in {self._state}") from None
            except PermissionError:
                raise denied(address) from None
