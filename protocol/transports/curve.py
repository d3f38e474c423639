"""CURVE keys of a tree: how they are derived, published, looked up and admitted.

Each process has one key pair. Its supervisor derives it from a secret that only supervisors hold,
so a restarted process keeps its keys and peers reconnect without asking anybody. The public half
lies in the run directory, whose permissions decide who can read it; a server admits a client only
if its key is published there, and knows the caller by that key, never by what it says of itself.

Source: ZeroMQ RFC 26 (CurveZMQ) and RFC 27 (ZAP).
"""

from __future__ import annotations

import os
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


def operator_secret_path(run: Path) -> Path:
    """The file with the secret key of the node's operators."""
    return run / "operator.secret"


def write_operator_key(run: Path, pair: KeyPair) -> None:
    """Put the operators' key pair where the node's group, and nobody else, can read it."""
    secret = operator_secret_path(run)
    secret.unlink(missing_ok=True)
    descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o640)
        file.write(pair.secret)
    publish(run, names.OPERATOR, pair.public)


def load_operator_key(run: Path) -> KeyPair:
    """Read the operators' key pair.

    Raises:
        PeerUnavailableError: no node has run in this state directory, or it was stopped.
        AccessDeniedError: the user is not in the node's group.
    """
    source = operator_secret_path(run)
    try:
        secret = source.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise PeerUnavailableError(f"the node is not running: {source} does not exist") from None
    except PermissionError:
        raise _denied(source) from None
    if len(secret) != _KEY_LENGTH:
        raise PeerUnavailableError(f"{source} does not hold a key")
    return KeyPair(public=zmq.curve_public(secret), secret=secret)


class KeyDirectory:
    """Who a public key belongs to, by the files of the run directory.

    A key that is not known is looked for again in the directory, since its process may just have
    been added; a known key is believed until it is looked up under another name.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._paths: dict[bytes, str] = {}

    def path_of(self, public: bytes) -> str | None:
        """The process that owns the key, or None for a stranger.

        Args:
            public: 40 characters of Z85.
        """
        path = self._paths.get(public)
        if path is None or not self._is_current(path, public):
            self._read()
            path = self._paths.get(public)
        return path

    def _is_current(self, path: str, public: bytes) -> bool:
        try:
            return names.key_path(self._run, path).read_bytes() == public
        except OSError:
            return False

    def _read(self) -> None:
        found: dict[bytes, str] = {}
        for entry in self._run.glob("*.key"):
            try:
                found[entry.read_bytes()] = names.path_of_key(entry)
            except OSError:  # withdrawn between the listing and the reading
                continue
        self._paths = found


def zap_reply(
    request: Sequence[bytes], path_of: Callable[[bytes], str | None]
) -> list[bytes] | None:
    """Decide one ZAP request.

    Args:
        request: frames version, request id, domain, address, identity, mechanism, credentials.
        path_of: tells the owner of a Z85 public key, or None.

    Returns:
        The reply's frames with the owner's path as user id, or None for what is not ZAP 1.0.
    """
    if len(request) < 6 or request[0] != _ZAP_VERSION:
        return None
    request_id, domain, mechanism, credentials = request[1], request[2], request[5], request[6:]
    owner = None
    if domain == ZAP_DOMAIN and mechanism == b"CURVE" and len(credentials) == 1:
        owner = path_of(z85.encode(credentials[0])) if len(credentials[0]) == 32 else None
    if owner is None:
        return [_ZAP_VERSION, request_id, b"400", b"key not known here", b"", b""]
    return [_ZAP_VERSION, request_id, b"200", b"OK", owner.encode(), b""]


class ZapServer:
    """Answers the ZAP requests of one ZeroMQ context; its owner polls ``socket``."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], directory: KeyDirectory) -> None:
        self._directory = directory
        self.socket: zmq.Socket[bytes] = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind("inproc://zeromq.zap.01")

    def turn(self) -> None:
        """Answer everything that is waiting; never blocks."""
        while int(self.socket.get(zmq.EVENTS)) & zmq.POLLIN:
            request = self.socket.recv_multipart(zmq.DONTWAIT)
            reply = zap_reply(request, self._directory.path_of)
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
