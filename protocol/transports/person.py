"""How a person gets the keys to call a tree with: from its root, by a Unix socket.

The root is told by the kernel who connects, and answers with a key pair of a few minutes;
supervisor.guard.persons says in which shape. Nothing secret lies on a disk.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path

from protocol import codec
from protocol.errors import (
    AccessDeniedError,
    PeerUnavailableError,
    RemoteCallError,
    RemoteProtocolError,
)
from protocol.transports.curve import KeyPair
from protocol.transports.identities import boottime_s

SOCKET = "identity.sock"
TIMEOUT_S = 5.0
_ANSWER_BYTES_MAX = 4096
_BUSY = "supervisor.busy"
_BUSY_PAUSE_S = 0.1
_KEY_LENGTH = 40


class PersonKeys:
    """The keys of whoever runs this program, for calls to one tree.

    Args:
        run: the tree's run directory.
        timeout_s: for the root to answer.

    Raises:
        PeerUnavailableError: nothing runs there.
        AccessDeniedError: this user may not speak to the tree.
        RemoteCallError: the root gives no keys; ``remote_code`` says why.
    """

    def __init__(self, run: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        self._run = run
        self._timeout_s = timeout_s
        self.name = ""
        self._renew_s = 0.0
        self._pair = KeyPair(b"", b"")
        self._renew()

    def current(self) -> KeyPair:
        """The pair to call with now; another object once it is another one.

        Raises:
            PeerUnavailableError, AccessDeniedError, RemoteCallError: as for the class.
        """
        if boottime_s() >= self._renew_s:
            self._renew()
        return self._pair

    def forget(self) -> None:
        """Ask again next time: the pair may be one of a tree that has ended."""
        self._renew_s = 0.0

    def _renew(self) -> None:
        answer = _ask(self._run / SOCKET, time.monotonic() + self._timeout_s)
        match answer:
            case {"name": str(name), "public": bytes(public), "secret": bytes(secret)} if (
                len(public) == len(secret) == _KEY_LENGTH
            ):
                pair = KeyPair(public=public, secret=secret)
            case _:
                raise RemoteProtocolError("the root's answer is no identity")
        life_s = answer.get("life_s")
        if not isinstance(life_s, (int, float)):
            raise RemoteProtocolError("the root's answer is no identity")
        self.name = name
        self._renew_s = boottime_s() + life_s / 3  # the root has another one from half of it on
        if pair != self._pair:
            self._pair = pair


def _ask(address: Path, deadline_s: float) -> dict[str, object]:
    while True:
        answer = _ask_once(address, max(0.05, deadline_s - time.monotonic()))
        if "code" not in answer:
            return answer
        code, message = str(answer["code"]), str(answer.get("message", "refused"))
        if code != _BUSY or time.monotonic() + _BUSY_PAUSE_S >= deadline_s:
            raise RemoteCallError(message, remote_code=code)
        time.sleep(_BUSY_PAUSE_S)


def _ask_once(address: Path, timeout_s: float) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asker:
        asker.settimeout(timeout_s)
        try:
            asker.connect(str(address))
            data = asker.recv(_ANSWER_BYTES_MAX)
        except PermissionError:
            raise AccessDeniedError(
                f"{address} may not be opened by this user: become root or join the node's group",
                file=str(address),
            ) from None
        except BlockingIOError:  # more wait there already than the kernel lets wait
            return {"code": _BUSY, "message": f"too many connect to {address} at once"}
        except TimeoutError:
            raise PeerUnavailableError(f"nobody answers at {address}") from None
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.ECONNRESET):
                raise PeerUnavailableError(
                    f"can't reach {address}: {os.strerror(exc.errno or 0)}"
                ) from exc
            raise PeerUnavailableError(
                f"the node is not running: nobody listens at {address}"
            ) from None
    answer = codec.decode(data) if data else None
    if not isinstance(answer, dict):
        raise PeerUnavailableError(f"the root ended before it answered at {address}")
    return answer
