"""The gateway's TLS: a server context from PEM files, loaded again when they change."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

from services.api.errors import TlsFilesError

# Until a client has to be through with its handshake; a connection counts only from then on.
HANDSHAKE_TIMEOUT_S = 5.0
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

Stamp = tuple[int, int, int]


class ServerTls:
    """A TLS context that follows its files.

    Args:
        cert_file, key_file: PEM; the certificate with its chain.
        client_ca_file: authorities of client certificates, which are asked for and not required;
            None asks for none.

    Attributes:
        context: for the listening socket; connections keep what they began with.

    Raises:
        TlsFilesError: a file can't be read or used, or others may read the key.
    """

    def __init__(self, cert_file: Path, key_file: Path, client_ca_file: Path | None) -> None:
        self._cert_file, self._key_file, self._ca_file = cert_file, key_file, client_ca_file
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        if client_ca_file is not None:
            self.context.verify_mode = ssl.CERT_OPTIONAL
        self._stamps = self._load()

    def refresh(self) -> bool:
        """Load the certificate and its key again if they have changed; True when they had.

        The authorities are read at the start alone, since a context can't forget one.

        Raises:
            TlsFilesError: the new ones can't be used; those from before stay in force.
        """
        if self._stamp() == self._stamps:
            return False
        trial = ServerTls(self._cert_file, self._key_file, None)
        self._use(self.context)
        self._stamps = trial._stamps
        return True

    def _load(self) -> tuple[Stamp, ...]:
        stamps = self._stamp()
        self._use(self.context)
        if self._ca_file is not None:
            try:
                self.context.load_verify_locations(self._ca_file)
            except (OSError, ssl.SSLError) as exc:
                raise _wrong(self._ca_file, exc) from exc
        return stamps

    def _use(self, context: ssl.SSLContext) -> None:
        try:
            # Without a terminal to ask at, an encrypted key is an error and not a question.
            context.load_cert_chain(self._cert_file, self._key_file, password=_no_passphrase)
        except (OSError, ssl.SSLError, ValueError) as exc:
            raise _wrong(self._cert_file, exc) from exc

    def _stamp(self) -> tuple[Stamp, ...]:
        found = []
        for path in (self._cert_file, self._key_file):
            try:
                state = path.stat()
            except OSError as exc:
                raise _wrong(path, exc) from exc
            found.append((state.st_mtime_ns, state.st_ino, state.st_size))
        if stat.S_IMODE(self._key_file.stat().st_mode) & _OTHERS:
            raise TlsFilesError(
                f"{self._key_file} may be read by others than its owner: chmod 600 it",
                file=str(self._key_file),
            )
        return tuple(found)


def _no_passphrase() -> str:
    raise ValueError("the key is encrypted; this server takes one without a passphrase")


def _wrong(path: Path, error: Exception) -> TlsFilesError:
    reason = getattr(error, "strerror", None) or str(error)
    return TlsFilesError(f"{path} can't be used for TLS: {reason}", file=str(path))
