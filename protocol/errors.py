"""The root of every error that NovaCron raises, and the errors of the protocol itself."""

from __future__ import annotations

from typing import ClassVar


class NovacronError(Exception):
    """Something went wrong that has a name.

    Subclasses set the class attributes; the instance carries the sentence for a person and the
    data for a machine.

    Attributes:
        code: stable dotted identifier, such as ``data.postgres_refused``.
        retryable: the same request may succeed later without anybody changing anything.
        expected: part of normal operation; logs show it without a traceback.
        fields: data that belongs to this occurrence.
    """

    code: ClassVar[str] = "novacron.error"
    retryable: ClassVar[bool] = False
    expected: ClassVar[bool] = True

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields

    def __str__(self) -> str:
        return self.message


class LocalProtocolError(NovacronError):
    """We tried to send what the protocol does not allow: our own fault."""

    code = "protocol.local"
    expected = False


class RemoteProtocolError(NovacronError):
    """The peer sent what the protocol does not allow; the message is dropped."""

    code = "protocol.remote"


class CallTimeoutError(NovacronError):
    """No reply came within the deadline; the call may or may not have been carried out."""

    code = "protocol.call_timeout"
    retryable = True


class PeerUnavailableError(NovacronError):
    """The peer has no endpoint or no published key: it is not running, or not ours."""

    code = "protocol.peer_unavailable"
    retryable = True


class AccessDeniedError(NovacronError):
    """The files that open the control socket may not be read by this user."""

    code = "protocol.access_denied"


class RemoteCallError(NovacronError):
    """The peer carried the call out and failed; ``remote_code`` names its error."""

    code = "protocol.remote_call"

    def __init__(self, message: str, *, remote_code: str, remote_retryable: bool = False) -> None:
        super().__init__(message, remote_code=remote_code)
        self.remote_code = remote_code
        self.remote_retryable = remote_retryable
