"""What can go wrong on the network level; the class says what the caller may do about it."""

from __future__ import annotations

from protocol.errors import NovacronError


class NetlinkFailedError(NovacronError):
    """The kernel refused a request or did not answer; trying again may help."""

    code = "network.netlink_failed"
    retryable = True


class MissingCapabilityError(NovacronError):
    """The process may read links but not change them: it lacks CAP_NET_ADMIN."""

    code = "network.capability_missing"


class BridgeConflictError(NovacronError):
    """The host already has something that the configured bridge would disturb; nothing is touched.

    The operator chooses another name or address, or removes the link.
    """

    code = "network.bridge_conflict"
