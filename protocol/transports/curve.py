"""CURVE keys of a tree: how they are derived, published, and admitted.

Each process has one key pair as a server. Its supervisor derives it from a secret that only
supervisors hold, so a restarted process keeps its keys and peers reconnect without asking
anybody. The public half lies in the run directory, whose permissions decide who can read it.

As a client it has another pair, which is replaced every few minutes (protocol.transports.
identities). A server admits a client only if somebody of the tree has issued its key, and knows
the caller by that key, never by what it says of itself.

Source: ZeroMQ RFC 26 (CurveZMQ) and RFC 27 (ZAP).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import zmq
from zmq.utils import z85

from protocol import names
from protocol.dataclass import dataclass
from protocol.errors import AccessDeniedError, PeerUnavailableError
from protocol.sha256 import hmac_sha256

ZAP_DOMAIN = b"novacron"
_ZAP_VERSION = b"1.0"
_KEY_LENGTH = 40
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair, both halves as 40 characters of Z85. ``repr`` hides the secret."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


def key_pair(tree_secret: bytes, child_id: str) -> KeyPair:
    """The key pair of a supervisor's child.

    Args:
        tree_secret: 32 bytes that only the supervisor of the child and those above it know.
        child_id: the child's id among its siblings.
    """
    seed = hmac_sha256(tree_secret, b"curve key\0" + child_id.encode())
    secret = z85.encode(seed)
    return KeyPair(public=zmq.curve_public(secret), secret=secret)


def client_pair(secret: bytes, generation: int) -> KeyPair:
    """The key pair that a process calls with during one generation.

    Args:
        secret: 32 bytes drawn for this process; its supervisor and it know them.
        generation: counted from its start.
    """
    seed = hmac_sha256(secret, b"client key\0%d" % generation)
    key = z85.encode(seed)
    return KeyPair(public=zmq.curve_public(key), secret=key)


def raw_key(public: bytes) -> bytes:
    """A key's 32 bytes.

    Args:
        public: 40 characters of Z85.
    """
    found: bytes = z85.decode(public)
    return found


def subtree_secret(tree_secret: bytes, child_id: str) -> bytes:
    """The secret from which a nested supervisor derives its own children's keys; 32 bytes."""
    return hmac_sha256(tree_secret, b"subtree\0" + child_id.encode())


def publish(run: Path, path: str, public: bytes) -> None:
    """Write a process's public key where its peers look for it, replacing it in one step."""
    target = names.key_path(run, path)
    if target.exists() and target.read_bytes() == public:
        return
    temporary = target.with_suffix(".key.new")
    temporary.write_bytes(public)
    temporary.chmod(0o640)
    temporary.replace(target)


def withdraw(run: Path, path: str) -> None:
    """Remove a process's public key, so that it is refused from now on."""
    names.key_path(run, path).unlink(missing_ok=True)


def published_key(run: Path, path: str) -> bytes:
    """The public key of a process.

    Raises:
        PeerUnavailableError: no such process has been started.
        AccessDeniedError: the run directory may not be read.
    """
    source = names.key_path(run, path)
    try:
        key = source.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise PeerUnavailableError(
            f"{path} is not running: no key at {source}", path=path
        ) from None
    except PermissionError:
        raise _denied(source) from None
    if len(key) != _KEY_LENGTH:
        raise PeerUnavailableError(f"{source} does not hold a key", path=path)
    return key


def zap_reply(request: Sequence[bytes], admit: Callable[[str], bool]) -> list[bytes] | None:
    """Decide one ZAP request.

    Args:
        request: frames version, request id, domain, address, identity, mechanism, credentials.
        admit: tells whether a key, in hexadecimal, may connect.

    Returns:
        The reply's frames with the key in hexadecimal as user id, or None for what is not ZAP
        1.0. Whose key it is each message is asked anew, since a connection outlives the answer.
    """
    if len(request) < 6 or request[0] != _ZAP_VERSION:
        return None
    request_id, domain, mechanism, credentials = request[1], request[2], request[5], request[6:]
    user_id = ""
    if domain == ZAP_DOMAIN and mechanism == b"CURVE" and len(credentials) == 1:
        user_id = credentials[0].hex()
    if len(user_id) != 2 * KEY_BYTES or not admit(user_id):
        return [_ZAP_VERSION, request_id, b"400", b"key not known here", b"", b""]
    return [_ZAP_VERSION, request_id, b"200", b"OK", user_id.encode(), b""]


class ZapServer:
    """Answers the ZAP requests of one ZeroMQ context; its owner polls ``socket``.

    Args:
        context: of the sockets that are served.
        admit: tells whether a key, in hexadecimal, may connect.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], admit: Callable[[str], bool]
    ) -> None:
        self._admit = admit
        self.socket: zmq.Socket[bytes] = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind("inproc://zeromq.zap.01")

    def turn(self) -> None:
        """Answer everything that is waiting; never blocks."""
        while int(self.socket.get(zmq.EVENTS)) & zmq.POLLIN:
            request = self.socket.recv_multipart(zmq.DONTWAIT)
            reply = zap_reply(request, self._admit)
            if reply is not None:
                self.socket.send_multipart(reply, zmq.DONTWAIT)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def _denied(source: Path) -> AccessDeniedError:
    return AccessDeniedError(
        f"{source} may not be read by this user: become root or join the node's group",
        file=str(source),
    )
