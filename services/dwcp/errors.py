"""What can go wrong in the DWCP level, by what the caller may do about it.

Codes cross the wire between nodes and between our processes; ``from_code`` turns one back into
its error, so that the sender's status names the cause even when the receiver found it.
"""

from __future__ import annotations

from protocol.errors import NovacronError
from supervisor.child.service import CriticalError

# A sentence for a person fits; a longer one from a peer is cut.
MESSAGE_LENGTH_MAX = 400


class DwcpSettingsError(CriticalError):
    """The settings of a DWCP process contradict each other or can't be applied."""

    code = "dwcp.settings"


class PortInUseError(CriticalError):
    """The configured address can't be listened on."""

    code = "dwcp.port_in_use"


class DwcpError(NovacronError):
    """A transfer failed; the subclass says why. Nothing is left at the receiver."""

    code = "dwcp.failed"


class RequestRefusedError(DwcpError):
    """The request breaks the form or the limits of transfers; nothing was started."""

    code = "dwcp.request_refused"


class TransferUnknownError(DwcpError):
    """No transfer of this id is known here."""

    code = "dwcp.transfer_unknown"


class BusyError(DwcpError):
    """This node carries as many transfers as it may; try again later."""

    code = "dwcp.busy"
    retryable = True


class PeerBusyError(DwcpError):
    """The other node takes no further transfer at the moment; try again later."""

    code = "dwcp.peer_busy"
    retryable = True


class FileMissingError(DwcpError):
    """There is no file of that name."""

    code = "dwcp.file_missing"


class FileUnreadableError(DwcpError):
    """The transport process may not read the file, or reading it failed."""

    code = "dwcp.file_unreadable"


class FileNotRegularError(DwcpError):
    """The name belongs to a directory, device, socket or pipe."""

    code = "dwcp.file_not_regular"


class FileTooLargeError(DwcpError):
    """The file is over the limit of one transfer."""

    code = "dwcp.file_too_large"


class FileChangedError(DwcpError):
    """The file changed while it was sent; what arrived was thrown away."""

    code = "dwcp.file_changed"
    retryable = True


class HostUnknownError(DwcpError):
    """The name of the other node does not resolve."""

    code = "dwcp.host_unknown"


class ConnectionRefusedByPeerError(DwcpError):
    """Nobody listens on the other node's port, or it can't be reached."""

    code = "dwcp.connection_refused"
    retryable = True


class PeerNotNovacronError(DwcpError):
    """What answers on that port does not speak DWCP."""

    code = "dwcp.peer_not_novacron"


class VersionMismatchError(DwcpError):
    """The other node speaks another version of DWCP."""

    code = "dwcp.version_mismatch"


class PeerLostError(DwcpError):
    """The connection to the other node broke before the transfer was complete."""

    code = "dwcp.peer_lost"
    retryable = True


class StalledError(DwcpError):
    """Nothing moved for the stated time; the other node or the path hangs."""

    code = "dwcp.stalled"
    retryable = True


class PeerProtocolError(DwcpError):
    """The other node sent what DWCP does not allow."""

    code = "dwcp.protocol"


class HashMismatchError(DwcpError):
    """What arrived is not what was sent."""

    code = "dwcp.hash_mismatch"
    retryable = True


class NameRefusedError(DwcpError):
    """The file's name can't be used at the receiver."""

    code = "dwcp.name_refused"


class TargetExistsError(DwcpError):
    """The receiver has another file of this name; it is never overwritten."""

    code = "dwcp.target_exists"


class DiskFullError(DwcpError):
    """The receiver's disk has no room for the file."""

    code = "dwcp.disk_full"


class StoreError(DwcpError):
    """The receiver can't write the file."""

    code = "dwcp.store_failed"


class CancelledError(DwcpError):
    """Somebody cancelled the transfer, on this node or the other."""

    code = "dwcp.cancelled"


class TransportLostError(DwcpError):
    """The transport process that carried the transfer died; send the file again."""

    code = "dwcp.transport_lost"
    retryable = True


class StoppingError(DwcpError):
    """A node stopped while the transfer ran; send the file again."""

    code = "dwcp.stopping"
    retryable = True


_CLASSES: tuple[type[DwcpError], ...] = (DwcpError, *DwcpError.__subclasses__())
_BY_CODE = {error.code: error for error in _CLASSES}


def from_code(code: str, message: str) -> DwcpError:
    """The error that a code from another process or node stands for.

    Args:
        code: an unknown one becomes a plain DwcpError that names it.
        message: the sentence that came with it; cut to a bounded length.
    """
    message = message[:MESSAGE_LENGTH_MAX]
    if (error := _BY_CODE.get(code)) is None:
        return DwcpError(f"{code[:64]}: {message}")
    return error(message)
