"""What can go wrong with libvirt; the class says what the caller may do about it."""

from __future__ import annotations

from protocol.errors import NovacronError


class LibvirtUnavailableError(NovacronError):
    """No connection could be made; the service keeps trying by itself."""

    code = "vm.libvirt_unavailable"
    retryable = True


class LibvirtLostError(NovacronError):
    """The connection broke; the service reconnects by itself and guests go on meanwhile."""

    code = "vm.libvirt_lost"
    retryable = True


class LibvirtTimeoutError(NovacronError):
    """libvirt did not answer within the deadline; the call may still be carried out."""

    code = "vm.libvirt_timeout"
    retryable = True


class LibvirtRefusedError(NovacronError):
    """libvirt answered and said no; the same request will fail again."""

    code = "vm.libvirt_refused"


class DomainNotFoundError(NovacronError):
    """libvirt has no such domain, or no longer."""

    code = "vm.domain_not_found"
