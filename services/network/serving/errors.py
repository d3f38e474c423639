"""What can go wrong with serving networks; the class says what the caller may do about it."""

from __future__ import annotations

from protocol.errors import NovacronError


class DnsmasqMissingError(NovacronError):
    """There is no dnsmasq on this host: install the package dnsmasq-base."""

    code = "network.dnsmasq_missing"


class DnsmasqConfigError(NovacronError):
    """dnsmasq does not take the configuration; the one before is in use. Names the network."""

    code = "network.dnsmasq_config"


class DnsmasqFailedError(NovacronError):
    """A network's dnsmasq does not come up; the message has its last words."""

    code = "network.dnsmasq_failed"
    retryable = True


class ForwardingError(NovacronError):
    """The kernel does not let forwarding be switched."""

    code = "network.forwarding"


class ServingStateError(NovacronError):
    """A file below the state directory can't be read or written; the message names it."""

    code = "network.serving_state"


class UnknownNetworkError(NovacronError):
    """No network of that name is served here."""

    code = "network.unknown_network"
