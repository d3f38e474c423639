"""Speaking to a running tree as its operator: what is up, why not, and commands.

Who may do that is decided by who may open the sockets in the tree's run directory; the tree knows
a person by the account that the kernel names.
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
    from supervisor.core.spec import ChildSpec

TIMEOUT_S = 5.0


class Client:
    """Calls the processes of one tree; for one thread.

    Args:
        run_dir: the tree's run directory.
        timeout_s: how long a call waits that does not say so itself.
    """

    def __init__(self, run_dir: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        from protocol.transports.person import PersonKeys
        from protocol.transports.zeromq import SyncClient

        self._timeout_s = timeout_s
        self._transport: SyncClient = SyncClient(run_dir, keys=PersonKeys(run_dir))

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

    def add(self, spec: ChildSpec, *, below: str = "", timeout_s: float | None = None) -> Health:
        """Start a further child, last in order; it is lost where its supervisor is restarted.

        Args:
            spec: such as supervisor.command returns.
            below: path of the nested supervisor to add it to; "" for the top.
            timeout_s: for it to come up.

        Raises:
            RemoteCallError: as ``call``; ``supervisor.start_failed`` where it did not come up,
                ``supervisor.already_started`` or ``supervisor.already_present`` where there is
                one of this id, ``supervisor.bad_spec`` where it can't be used.
        """
        body = {"spec": to_wire(spec)}
        return _health(self.call(below or names.ROOT, "add", body, timeout_s=timeout_s))[1]

    def add_instance(
        self, pool: str, settings: dict[str, Plain] | None = None, *, timeout_s: float | None = None
    ) -> str:
        """Start a further child of a pool; returns its path. Errors as of ``add``.

        Args:
            pool: path of the pool's supervisor.
            settings: beside the template's, or in their place.
            timeout_s: for it to come up.
        """
        answer = self.call(pool, "add", {"settings": settings or {}}, timeout_s=timeout_s)
        return names.child_path(pool, _health(answer)[0])

    def delete(self, path: str) -> None:
        """Take a child that does not run off the list; errors as in ``call``.

        Raises:
            RemoteCallError: ``supervisor.running`` where it must be stopped first.
        """
        self.call(names.parent_path(path), "delete", {"id": path.rpartition("/")[2]})

    def children(self, path: str = "") -> Plain:
        """OTP's which_children and count_children; errors as in ``call``.

        Args:
            path: of a nested supervisor; "" for the top.

        Returns:
            ``children``, a list of maps with id, presence (running, starting, restarting,
            not_running), pid, type and restart; and ``counts`` of specs, active, supervisors and
            workers.
        """
        return self.call(path or names.ROOT, "children")

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
        answer = self.call(names.parent_path(path), verb, {"id": name}, timeout_s=timeout_s)
        return _health(answer)[1]


def _health(answer: Plain) -> tuple[str, Health]:
    """The child that an order was about, and how it then is."""
    match answer:
        case {"id": str(name), "state": str(state), "reason": str(reason)}:
            return name, Health(HealthState(state), reason)
        case other:
            raise RemoteProtocolError(f"unknown answer to an order: {other!r}")


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
