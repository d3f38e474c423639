"""What can go wrong with segments; the class says what the caller may do about it."""

from __future__ import annotations

from protocol.errors import NovacronError


class SegmentsTooLargeError(NovacronError):
    """The document is valid and too large for the kernel's sets: say it with fewer peers."""

    code = "network.segments_too_large"


class NftMissingError(NovacronError):
    """There is no nft program, or it can't be run: install nftables."""

    code = "network.nft_missing"


class NftFailedError(NovacronError):
    """nft refused a change; nothing of it is in force. ``fields`` name the interface."""

    code = "network.nft_failed"


class NftTimeoutError(NovacronError):
    """nft did not end in time and was killed; what is in force was read anew."""

    code = "network.nft_timeout"
    retryable = True


class SegmentsCheckFailedError(NovacronError):
    """The health check after the change failed; the previous set is in force again."""

    code = "network.segments_check_failed"


class SegmentsRestoreFailedError(NovacronError):
    """A change failed and the previous set could not be put back: look at it by hand."""

    code = "network.segments_restore_failed"


class SegmentsBusyError(NovacronError):
    """Another change is under way; ask again when it has ended."""

    code = "network.segments_busy"
    retryable = True


class SegmentsNotWantedError(NovacronError):
    """No segments were ever applied on this node, so there is nothing to ask about."""

    code = "network.segments_none"


class SegmentsStateError(NovacronError):
    """The file of the wanted segments can't be read or written; the message names it."""

    code = "network.segments_state"


class SegmentsTargetSilentError(NovacronError):
    """A target of the health check did not answer before the change: mend it, or leave it out."""

    code = "network.segments_target_silent"
