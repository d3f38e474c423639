"""What can go wrong with leases; the class says what the caller may do about it."""

from __future__ import annotations

from protocol.errors import NovacronError


class LeasedElsewhereError(NovacronError):
    """Another node has the machine: stop it there; ``fields`` say which, and if it is heard of."""

    code = "vm.leased_elsewhere"


class DiskLeasedError(NovacronError):
    """Another machine uses a disk that this one would write: stop it, or share the disk."""

    code = "vm.disk_leased"


class DiskLockedError(NovacronError):
    """Another program has a disk open; the lock is that of QEMU or libvirt."""

    code = "vm.disk_locked"


class LeaseLostError(NovacronError):
    """The lease is not that of the node and epoch that were named; ``fields`` say whose it is."""

    code = "vm.lease_lost"


class LeasesUnavailableError(NovacronError):
    """The database is away: only what this node has a lease for is started; guests run on."""

    code = "vm.leases_unavailable"
    retryable = True


class LeaseStoreError(NovacronError):
    """The table of leases can't be used as it is; the message says why."""

    code = "vm.lease_store"


class AssignRefusedError(NovacronError):
    """The document can't go to that node; the message says why."""

    code = "vm.assign_refused"


class StorageMarkError(NovacronError):
    """The file that names a shared storage holds no name: mend it."""

    code = "vm.storage_mark"
