"""What can go wrong with networks; the class says what the caller may do about it."""

from __future__ import annotations

from protocol.errors import NovacronError


class NetworksDocumentError(NovacronError):
    """A document is not valid: mend it where the message says."""

    code = "network.networks_document"


class NetworksConflictError(NovacronError):
    """The host has something in the way; nothing was changed. ``fields`` list every conflict."""

    code = "network.networks_conflict"


class NetworksUnsupportedError(NovacronError):
    """The kernel lacks what the document needs; nothing was changed. The message names it."""

    code = "network.networks_unsupported"


class NetworksStepFailedError(NovacronError):
    """The kernel refused a step; what was there before is restored. The message names the step."""

    code = "network.networks_step_failed"


class NetworksCheckFailedError(NovacronError):
    """The connectivity check after the change failed; what was there before is restored."""

    code = "network.networks_check_failed"


class NetworksTargetSilentError(NovacronError):
    """A target did not answer before the change: mend it, or leave it out. Nothing was changed."""

    code = "network.networks_target_silent"


class NetworksRestoreFailedError(NovacronError):
    """A change failed and what was before could not be restored: look at it by hand."""

    code = "network.networks_restore_failed"


class NetworksBusyError(NovacronError):
    """Another change is under way; ask again when it has ended."""

    code = "network.networks_busy"
    retryable = True


class NetworksNotWantedError(NovacronError):
    """No networks were ever applied on this node, so there is nothing to put back."""

    code = "network.networks_none"


class NetworksStateError(NovacronError):
    """The file of the wanted networks can't be read or written; the message names it."""

    code = "network.networks_state"
