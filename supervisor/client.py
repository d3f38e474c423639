"""Speaking to a running tree as its operator: what is up, why not, and commands.

Who may do that is decided by who may read the tree's run directory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from protocol import names
from protocol.errors import RemoteProtocolError
from protocol.messages.explain import ExplainQuery, Explanation
from protocol.messages.health import Health, HealthState
from protocol.messages.status import NodeStatus
from protocol.records import Plain, from_wire, to_wire

if TYPE_CHECKING:
    from protocol.transports.zeromq import SyncClient

TIMEOUT_S = 5.0


class Client:
    """Calls the processes of one tree; for one thread.

    Args:
        run_dir: the tree's run directory.
        timeout_s: how long a call waits that does not say so itself.
    """

    def __init__(self, run_dir: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        from protocol.transports.curve import load_operator_key
        from protocol.transports.zeromq import SyncClient

        keys = load_operator_key(run_dir)
        self._timeout_s = timeout_s
        self._transport: SyncClient = SyncClient(
            run_dir, secret_key=keys.secret, public_key=keys.public
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def status(self) -> NodeStatus:
        """The whole tree; errors as in ``call``."""
        return from_wire(NodeStatus, self.call(names.ROOT, "status"))

    def start(self, path: str, *, timeout_s: float | None = None) -> Health:
        """Start a child, or try it again now; returns how it then is. Errors as in ``call``.

        Args:
            path: from the top of the tree, such as ``web`` or ``database/backup``.
            timeout_s: for it to come up.
        """
        return self._command("start", path, timeout_s)

    def stop(self, path: str, *, timeout_s: float | None = None) -> Health:
        """Stop a child; it stays so until it is started. As ``start``."""
        return self._command("stop", path, timeout_s)

    def restart(self, path: str, *, timeout_s: float | None = None) -> Health:
        """Stop a child and start it again, which does not count against the intensity."""
        return self._command("restart", path, timeout_s)

    def explain(self, path: str) -> Explanation:
        """Why a child is as it is, and what will happen next; errors as in ``call``.

        Args:
            path: as for ``start``; "" for the supervisor at the top alone.
        """
        query = ExplainQuery(id=path.rpartition("/")[2])
        answer = self.call(names.parent_path(path), "explain", to_wire(query))
        return from_wire(Explanation, answer)

    def call(
        self, path: str, method: str, body: Plain = None, *, timeout_s: float | None = None
    ) -> Plain:
        """Call a method of any process of the tree, such as a service's own.

        Raises:
            PeerUnavailableError: that process does not run.
            AccessDeniedError: this user may not speak to the tree.
            CallTimeoutError: no reply in time; the call may have been carried out.
            RemoteCallError: the call failed; ``remote_code`` says how.
            RemoteProtocolError: the answer is that of another version.
        """
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        return self._transport.call(path, method, body, timeout_s=wait_s)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _command(self, verb: str, path: str, timeout_s: float | None) -> Health:
        name = path.rpartition("/")[2]
        match self.call(names.parent_path(path), verb, {"id": name}, timeout_s=timeout_s):
            case {"state": str(state), "reason": str(reason)}:
                return Health(HealthState(state), reason)
            case other:
                raise RemoteProtocolError(f"{path}: unknown answer to {verb}: {other!r}")


def connect(state_dir: str | os.PathLike[str], *, timeout_s: float = TIMEOUT_S) -> Client:
    """Connect to the tree that runs on a state directory.

    Args:
        state_dir: that was given to supervisor.run.
        timeout_s: how long a call waits that does not say so itself.

    Raises:
        PeerUnavailableError: nothing runs there.
        AccessDeniedError: this user may not speak to it.
    """
    return Client(names.run_dir(Path(state_dir).absolute()), timeout_s=timeout_s)
